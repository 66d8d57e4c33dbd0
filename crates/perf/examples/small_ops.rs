//! Measures the rates of a card between products, as `profile` puts them into a set's manifest, and prints them as JSON:
//! `cargo run --release -p dualgrain-perf --features cuda --example small_ops [INDEX OF THE CARD]`.

fn main() {
    let index = std::env::args()
        .nth(1)
        .map_or(0, |index| index.parse().expect("a number of a card"));
    match dualgrain_perf::small_op_rates(index) {
        Ok(rates) => println!("{}", serde_json::to_string_pretty(&rates).expect("numbers")),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}
