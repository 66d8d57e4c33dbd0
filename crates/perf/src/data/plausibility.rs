//! What a row may hold. A row that no measurement can give is refused, when it is written and when it is read.

use dualgrain_format::K_MAX;

use super::row::Row;
use crate::group_number;
use crate::machine::Machine;
use crate::operands::OperandTypes;
use crate::product::LONGEST_SIDE;

/// The most that a size of a configuration, or a count, may be: far beyond any kernel.
const MOST_SIZE: f64 = 65_536.0;
const MOST_COUNT: f64 = 4_294_967_296.0;
/// A rate may exceed the measured peak of the machine by this factor: the peak may have been measured in a bad moment.
const RATES_OF_PEAK: f64 = 10.0;
/// The least and the most that a measurement may be.
const SECONDS: (f64, f64) = (1e-9, 1e5);
const WATTS: (f64, f64) = (1e-3, 1e5);
const JOULES: (f64, f64) = (1e-12, 1e9);
const HERTZ: (f64, f64) = (1e3, 1e11);
const CELSIUS: (f64, f64) = (-50.0, 200.0);
/// Quartiles are interpolated, so equal ones differ by rounding.
const ROUNDING: f64 = 1e-9;
/// The time of a product inside the energy window may differ from the time that was measured by this factor.
const MOST_DRIFT: f64 = 4.0;

impl Row {
    /// Refuses a row that no measurement can give. Every number is finite and in its range, the quartiles lie around their
    /// median, energy is power times time, and the product was checked and timed or a flag says why not.
    ///
    /// # Errors
    /// The column, its value, and what the value may be.
    pub fn check(&self) -> Result<(), String> {
        self.check_sizes()?;
        self.check_numbers()?;
        self.check_time()?;
        self.check_energy()?;
        let is_whole = !self.verified.is_empty() && self.time_s.is_some();
        match is_whole || self.flag.is_some() {
            true => Ok(()),
            false => Err(
                "neither checked and timed (verified, time_s) nor marked with the reason why not (mark)"
                    .to_owned(),
            ),
        }
    }

    /// Refuses a time that is too short for the machine.
    ///
    /// # Errors
    /// The rate that the row states, and the most that the machine may reach.
    pub fn check_rate(&self, machine: &Machine) -> Result<(), String> {
        let (Some(time_s), Ok(operand_types)) = (self.time_s, OperandTypes::of_kernel(&self.kernel)) else {
            return Ok(());
        };
        let rate = self.product().ops() / time_s;
        let most = RATES_OF_PEAK * machine.peak_ops_per_s(operand_types.unit);
        match rate <= most {
            true => Ok(()),
            false => Err(format!(
                "time_s is {time_s:e}: {rate:.3e} operations a second, expected at most {most:.3e}"
            )),
        }
    }

    fn check_sizes(&self) -> Result<(), String> {
        all_within(&[("m", self.m), ("n", self.n)], (1.0, LONGEST_SIDE as f64))?;
        all_within(&[("k", self.k)], (1.0, K_MAX as f64))?;
        let sizes = [
            ("group_size", group_number::of(self.group_size)),
            ("tile_m", self.tile_m),
            ("tile_n", self.tile_n),
            ("tile_k", self.tile_k),
            ("stages", self.stages),
            ("threads", self.threads),
            ("cluster", self.cluster),
            ("split_k", self.split_k),
            ("ctas_per_sm", self.ctas_per_sm),
            ("registers", self.registers),
        ];
        all_within(&sizes, (0.0, MOST_SIZE))?;
        let counts = [
            ("ctas", self.ctas),
            ("shared_bytes", self.shared_bytes),
            ("runs", self.runs),
            ("energy_runs", self.energy_runs),
        ];
        all_within(&counts, (0.0, MOST_COUNT))
    }

    fn check_numbers(&self) -> Result<(), String> {
        within("alpha", self.alpha, (-f64::MAX, f64::MAX))?;
        within("beta", self.beta, (-f64::MAX, f64::MAX))?;
        within("occupancy", self.occupancy, (0.0, 1.0))?;
        within("waves", self.waves, (0.0, MOST_COUNT))?;
        let measured = [
            ("time_s", self.time_s, SECONDS),
            ("time_q1_s", self.time_q1_s, SECONDS),
            ("time_q3_s", self.time_q3_s, SECONDS),
            ("power_w", self.power_w, WATTS),
            ("energy_j", self.energy_j, JOULES),
            ("energy_window_s", self.energy_window_s, SECONDS),
            ("sm_clock_hz", self.sm_clock_hz, HERTZ),
            ("memory_clock_hz", self.memory_clock_hz, HERTZ),
            ("temperature_c", self.temperature_c, CELSIUS),
        ];
        for (column, value, range) in measured {
            value.map_or(Ok(()), |value| within(column, value, range))?;
        }
        Ok(())
    }

    fn check_time(&self) -> Result<(), String> {
        match (self.time_q1_s, self.time_s, self.time_q3_s) {
            (None, None, None) => Ok(()),
            (Some(q1), Some(median), Some(q3)) => {
                within("time_s", median, (q1 * (1.0 - ROUNDING), q3 * (1.0 + ROUNDING)))
            }
            _ => Err("time_s, time_q1_s and time_q3_s: expected all of them, or none".to_owned()),
        }
    }

    fn check_energy(&self) -> Result<(), String> {
        let (Some(power_w), Some(energy_j)) = (self.power_w, self.energy_j) else {
            return match self.power_w.is_none() && self.energy_j.is_none() {
                true => Ok(()),
                false => Err("power_w and energy_j: expected both, or none".to_owned()),
            };
        };
        let Some(time_s) = self.time_s else {
            return Ok(());
        };
        let expected_j = power_w * time_s;
        within(
            "energy_j (which is power_w times a product's time)",
            energy_j,
            (expected_j / MOST_DRIFT, expected_j * MOST_DRIFT),
        )
    }
}

/// Refuses the first of several columns that lies outside a range.
fn all_within(columns: &[(&str, usize)], range: (f64, f64)) -> Result<(), String> {
    columns
        .iter()
        .try_for_each(|&(column, value)| within(column, value as f64, range))
}

/// Refuses a value that is no number or lies outside a range.
fn within(column: &str, value: f64, (least, most): (f64, f64)) -> Result<(), String> {
    match value >= least && value <= most {
        true => Ok(()),
        false => Err(format!("{column} is {value}, expected {least} to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::row::QualityFlag;
    use crate::data::row::tests::sound_row;

    #[test]
    fn one_corrupt_number_is_told_by_its_column() {
        assert_eq!(sound_row().check(), Ok(()));
        type Corrupt = fn(&mut Row);
        let cases: [(&str, Corrupt); 17] = [
            ("m is 0", |row| row.m = 0),
            ("k is", |row| row.k = usize::MAX),
            ("tile_m", |row| row.tile_m = 100_000_000_000_000),
            ("alpha", |row| row.alpha = f64::NAN),
            ("occupancy", |row| row.occupancy = 1.5),
            ("waves", |row| row.waves = f64::INFINITY),
            ("time_s", |row| row.time_s = Some(-1e-5)),
            ("time_s", |row| row.time_s = Some(f64::NAN)),
            ("time_s", |row| row.time_s = Some(1e30)),
            // In range, and yet not between its quartiles.
            ("time_s", |row| row.time_s = Some(1.0)),
            ("time_q3_s", |row| row.time_q3_s = None),
            ("power_w", |row| row.power_w = Some(0.0)),
            ("power_w", |row| row.power_w = Some(-5.0)),
            ("power_w", |row| row.power_w = None),
            ("energy_j", |row| row.energy_j = Some(-1.0)),
            ("energy_j", |row| row.energy_j = Some(1.0)),
            ("temperature_c", |row| row.temperature_c = Some(1e9)),
        ];
        for (column, corrupt) in cases {
            let mut row = sound_row();
            corrupt(&mut row);
            let what = row.check().unwrap_err();
            assert!(what.contains(column), "{column}: {what}");
        }
    }

    #[test]
    fn row_without_a_time_says_why() {
        let untimed = Row {
            time_s: None,
            time_q1_s: None,
            time_q3_s: None,
            power_w: None,
            energy_j: None,
            ..sound_row()
        };
        assert!(untimed.check().unwrap_err().contains("mark"));
        let flagged = Row {
            flag: Some(QualityFlag::NotRun),
            verified: String::new(),
            ..untimed
        };
        assert_eq!(flagged.check(), Ok(()));
        let unchecked = Row {
            verified: String::new(),
            ..sound_row()
        };
        assert!(unchecked.check().unwrap_err().contains("verified"));
    }
}
