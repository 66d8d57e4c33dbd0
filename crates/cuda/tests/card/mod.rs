//! A test binary that compares kernels with the specification on the first card: `--cases N`, and `--times` prints speeds
//! afterwards. Without a card or a compiler it says SKIPPED, or fails with `DUALGRAIN_MAY_LACK=nothing`.

use std::process::ExitCode;

use dualgrain_cuda::{CudaError, Gpu, Jit};
use dualgrain_testing::skipped;

/// Runs `compare` over as many `cases` as asked for; it tells how many of them differ.
pub fn compare(
    what: &str,
    cases: usize,
    compare: impl FnOnce(&Jit, &Gpu, usize) -> Result<usize, CudaError>,
    print_times: impl FnOnce(&Jit, &Gpu) -> Result<(), CudaError>,
) -> ExitCode {
    let mut arguments = std::env::args()
        .skip_while(|argument| argument != "--cases")
        .skip(1);
    let count = arguments
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(cases);
    let (jit, gpu) = match Gpu::open(0).and_then(|gpu| Ok((Jit::new(&gpu)?, gpu))) {
        Ok(ready) => ready,
        Err(error) => {
            skipped("gpu", format_args!("no {what} compared on a GPU: {error}"));
            return ExitCode::SUCCESS;
        }
    };
    let compared = compare(&jit, &gpu, count).and_then(|failed| {
        if std::env::args().any(|argument| argument == "--times") {
            print_times(&jit, &gpu)?;
        }
        Ok(failed)
    });
    match compared {
        Ok(0) => {
            println!("{count} cases of {what} equal the specification");
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            println!("FAILED: {failed}, of {count} cases of {what}");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}
