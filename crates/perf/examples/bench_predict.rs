//! Times predictions, features and intervals included: `bench_predict MODEL [PREDICTIONS]`. Prints loading in milliseconds,
//! the median and the 99th percentile of single predictions in nanoseconds.

use std::path::Path;
use std::time::Instant;

use dualgrain_perf::{KernelCall, Model, Product};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: bench_predict MODEL [PREDICTIONS]")?;
    let count: usize = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let begun = Instant::now();
    let model = Model::read(Path::new(&path))?;
    println!("loaded in {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
    let calls = calls(&model, count);
    let mut sum = 0.0;
    let mut nanos = Vec::with_capacity(count);
    for call in calls.iter().cycle().take(count) {
        let begun = Instant::now();
        sum += model.predict(call)?.time_s.high;
        nanos.push(begun.elapsed().as_nanos());
    }
    nanos.sort_unstable();
    println!(
        "{count} predictions over {} calls: median {} ns, 99 % within {} ns (sum {sum:.3} s)",
        calls.len(),
        nanos[count / 2],
        nanos[count * 99 / 100]
    );
    Ok(())
}

/// Every configuration with some products, spread over the sizes.
fn calls(model: &Model, count: usize) -> Vec<KernelCall<'_>> {
    let configs: Vec<_> = model.kernels().flat_map(|kernel| model.configs(kernel)).collect();
    let mut calls = Vec::new();
    for at in 0..count.min(20_000) {
        let facts = configs[at % configs.len()];
        let product = Product {
            group_size: facts.group_size,
            output: &facts.output,
            ..Product::new(
                facts.least_m.max(at * 7 % facts.most_m.max(1)),
                64 * (1 + at * 13 % 400),
                64 * (1 + at * 29 % 200),
            )
        };
        calls.push(KernelCall {
            kernel: &facts.kernel,
            config: &facts.config,
            product,
        });
    }
    calls
}
