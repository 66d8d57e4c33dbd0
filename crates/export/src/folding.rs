//! Both scales in one: `s1 * s2` as a 16-bit float, and what that costs.

use half::f16;
use serde::Serialize;

use crate::error::ExportError;
use crate::formats::ExportFormat;

/// What a scale becomes, and a count of how far it moved.
#[derive(Debug)]
pub struct Folding {
    format: ExportFormat,
    num_scales: u64,
    sum_squares: f64,
    max_relative: f64,
    num_subnormal: u64,
    first_subnormal: Option<String>,
}

/// The error of folding, over all scales that are not 0.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FoldingReport {
    /// Scales that were folded.
    pub num_scales: u64,
    /// The largest relative error of a scale.
    pub max_relative_error: f64,
    /// The root mean square of the relative errors.
    pub rms_relative_error: f64,
    /// Scales below the smallest normal 16-bit float, which have fewer bits.
    pub num_subnormal: u64,
    /// The first linear with such a scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_subnormal: Option<String>,
}

/// Where a scale stands.
#[derive(Debug, Clone, Copy)]
pub struct ScalePlace<'a> {
    /// The linear.
    pub linear: &'a str,
    /// Its row.
    pub row: usize,
    /// The group in that row.
    pub group: usize,
}

impl Folding {
    /// Nothing folded yet.
    pub fn new(format: ExportFormat) -> Self {
        Self {
            format,
            num_scales: 0,
            sum_squares: 0.0,
            max_relative: 0.0,
            num_subnormal: 0,
            first_subnormal: None,
        }
    }

    /// `s1 * s2`, exact in f64, rounded to 16 bits.
    ///
    /// # Errors
    /// [`ExportError::Scale`] where that overflows, or becomes 0 and was not.
    pub fn fold(&mut self, place: ScalePlace<'_>, s1: f32, s2: u8) -> Result<f16, ExportError> {
        let scale = f64::from(s1) * f64::from(s2);
        let folded = f16::from_f64(scale);
        let problem = match (folded.is_finite(), scale > 0.0 && folded == f16::ZERO) {
            (false, _) => Some("overflows"),
            (true, true) => Some("becomes 0"),
            (true, false) => None,
        };
        if let Some(problem) = problem {
            return Err(self.error(place, scale, problem));
        }
        if scale > 0.0 {
            self.count(place, scale, folded);
        }
        Ok(folded)
    }

    /// The error of a scale that has no 16-bit float.
    pub fn error(&self, place: ScalePlace<'_>, scale: f64, problem: &'static str) -> ExportError {
        ExportError::Scale {
            linear: place.linear.to_owned(),
            row: place.row,
            group: place.group,
            scale,
            problem,
            format: self.format,
        }
    }

    fn count(&mut self, place: ScalePlace<'_>, scale: f64, folded: f16) {
        let error = (folded.to_f64() - scale).abs() / scale;
        self.num_scales += 1;
        self.sum_squares += error * error;
        self.max_relative = self.max_relative.max(error);
        if folded < f16::MIN_POSITIVE {
            self.num_subnormal += 1;
            self.first_subnormal
                .get_or_insert_with(|| place.linear.to_owned());
        }
    }

    /// What it came to; `None` when nothing was folded.
    pub fn report(self) -> Option<FoldingReport> {
        (self.num_scales > 0).then(|| FoldingReport {
            num_scales: self.num_scales,
            max_relative_error: self.max_relative,
            rms_relative_error: (self.sum_squares / self.num_scales as f64).sqrt(),
            num_subnormal: self.num_subnormal,
            first_subnormal: self.first_subnormal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: ScalePlace<'static> = ScalePlace {
        linear: "a.b",
        row: 3,
        group: 2,
    };

    #[test]
    fn a_folded_scale_is_the_nearest_16_bit_float_and_its_error_is_counted() {
        let mut folding = Folding::new(ExportFormat::Gguf);
        assert_eq!(folding.fold(PLACE, 0.5, 3).unwrap().to_f32(), 1.5);
        assert_eq!(folding.fold(PLACE, 0.0, 3).unwrap(), f16::ZERO);
        // Halfway between two neighbours above 1, whose distance is 1/1024: to the even one.
        let folded = folding.fold(PLACE, 1.0 + 1.0 / 2048.0, 1).unwrap();
        assert_eq!(folded.to_f32(), 1.0);
        let report = folding.report().unwrap();
        assert_eq!((report.num_scales, report.num_subnormal), (2, 0));
        assert!((report.max_relative_error - 4.88e-4).abs() < 1e-6);
        assert!((report.rms_relative_error - 4.88e-4 / 2_f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn a_scale_that_16_bits_can_not_hold_is_refused_with_its_place() {
        let mut folding = Folding::new(ExportFormat::CompressedTensors);
        for (s1, s2, problem) in [(1e4_f32, 127, "overflows"), (1e-9, 1, "becomes 0")] {
            let error = folding.fold(PLACE, s1, s2).unwrap_err().to_string();
            for part in ["`a.b`, row 3, group 2", problem, "compressed-tensors"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn scales_with_fewer_bits_are_counted_and_named() {
        let mut folding = Folding::new(ExportFormat::Gguf);
        folding.fold(PLACE, 2e-5, 1).unwrap();
        let report = folding.report().unwrap();
        assert_eq!(report.num_subnormal, 1);
        assert_eq!(report.first_subnormal.as_deref(), Some("a.b"));
    }
}
