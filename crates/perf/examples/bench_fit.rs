//! Times a fit, judging and intervals included: `bench_fit DATA [ROWS] [THREADS] [MODEL]`. Learns from the first ROWS rows
//! of a measured set (any beginning of a set is balanced), prints the seconds, and writes the model where MODEL is given.

use std::path::{Path, PathBuf};
use std::time::Instant;

use dualgrain_perf::{Dataset, FitOptions, Model};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: bench_fit DATA [ROWS] [THREADS] [MODEL]")?;
    let rows: usize = arguments.next().map_or(Ok(usize::MAX), |text| text.parse())?;
    let threads: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let begun = Instant::now();
    let mut data = Dataset::read_all(&[PathBuf::from(folder)])?;
    data.rows.truncate(rows);
    println!(
        "read {} rows in {:.2} s",
        data.rows.len(),
        begun.elapsed().as_secs_f64()
    );
    let begun = Instant::now();
    let model = Model::fit_with(
        &data,
        &FitOptions {
            threads,
            ..FitOptions::default()
        },
    )?;
    println!(
        "fitted on {threads} threads in {:.2} s",
        begun.elapsed().as_secs_f64()
    );
    if let Some(path) = arguments.next() {
        model.write(Path::new(&path))?;
    }
    Ok(())
}
