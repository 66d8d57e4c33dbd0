//! From logits to the next token: greedy, or a seeded draw after temperature, top-k, top-p and min-p.

use std::cmp::Ordering;

use thiserror::Error;

/// How the next token is chosen. The filters apply in this order: temperature, top-k, top-p, min-p; each sees the
/// distribution the one before it left.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct SamplingParams {
    /// Logits are divided by it; 0 takes the most likely token and draws nothing.
    pub temperature: f32,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the fewest most likely tokens whose probabilities sum to at least this; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Start of the random sequence: equal seeds and logits give equal tokens, on any machine with any thread count.
    pub seed: u64,
}

impl SamplingParams {
    /// The most likely token, always.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 0,
    };
}

/// Why no token could be chosen.
#[derive(Debug, Error, PartialEq)]
pub enum SamplerError {
    /// A parameter is outside its range.
    #[error("{name}: expected {expected}, got {got}")]
    Parameter {
        /// Which parameter.
        name: &'static str,
        /// The allowed range, in words.
        expected: &'static str,
        /// The value given.
        got: f32,
    },
    /// The model produced a number no distribution can hold.
    #[error("logit of token {token} is {got}: expected a finite number or -inf (damaged weights?)")]
    Logit {
        /// The token's id.
        token: usize,
        /// The logit.
        got: f32,
    },
    /// Every logit is -inf, or there are none.
    #[error("no token is possible: all {num_logits} logits are -inf")]
    NoToken {
        /// Length of the row of logits.
        num_logits: usize,
    },
}

/// Chooses tokens one at a time; allocates only while its buffer grows to the vocabulary.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    rng: Xoshiro256,
    candidates: Vec<Candidate>,
}

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    /// `exp((logit - max) / temperature)`: a probability up to a common factor.
    weight: f64,
}

impl Sampler {
    /// Checks the parameters.
    ///
    /// # Errors
    /// A parameter outside its range, with the range.
    pub fn new(params: SamplingParams) -> Result<Self, SamplerError> {
        let check = |name, expected, got: f32, fits: bool| match fits {
            true => Ok(()),
            false => Err(SamplerError::Parameter { name, expected, got }),
        };
        let SamplingParams {
            temperature,
            top_p,
            min_p,
            ..
        } = params;
        check(
            "temperature",
            "a finite number >= 0",
            temperature,
            temperature.is_finite() && temperature >= 0.0,
        )?;
        check("top_p", "a number in (0, 1]", top_p, top_p > 0.0 && top_p <= 1.0)?;
        check("min_p", "a number in [0, 1]", min_p, (0.0..=1.0).contains(&min_p))?;
        Ok(Self {
            params,
            rng: Xoshiro256::new(params.seed),
            candidates: Vec::new(),
        })
    }

    /// The next token for `logits`, one for each entry of the vocabulary. Equal logits count by id: the lower one is the more likely.
    ///
    /// # Errors
    /// A logit that is NaN or +inf, or nothing but -inf.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, SamplerError> {
        let best = argmax(logits)?;
        if self.params.temperature == 0.0 || self.params.top_k == 1 {
            return Ok(best);
        }
        self.collect(logits, logits[best as usize]);
        self.keep_top_k();
        self.keep_top_p();
        self.keep_min_p();
        Ok(self.draw())
    }

    fn collect(&mut self, logits: &[f32], max: f32) {
        let inv_temperature = 1.0 / f64::from(self.params.temperature);
        self.candidates.clear();
        self.candidates.reserve(logits.len());
        self.candidates
            .extend((0..).zip(logits).map(|(token, &logit)| Candidate {
                token,
                logit,
                // Max first: 0 * (1 / a denormal temperature) must not become NaN.
                weight: if logit == max {
                    1.0
                } else {
                    ((f64::from(logit) - f64::from(max)) * inv_temperature).exp()
                },
            }));
    }

    fn keep_top_k(&mut self) {
        let k = self.params.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, more_likely);
            self.candidates.truncate(k);
        }
    }

    /// Sorts only as many candidates as the nucleus turns out to need: a few hundred of 128 k as a rule.
    fn keep_top_p(&mut self) {
        if self.params.top_p >= 1.0 {
            return;
        }
        // Unsorted sums would depend on the selection algorithm's order: sum in id order.
        self.candidates.sort_unstable_by_key(|c| c.token);
        let total: f64 = self.candidates.iter().map(|c| c.weight).sum();
        let target = f64::from(self.params.top_p) * total;
        let mut sorted = 256;
        loop {
            if sorted < self.candidates.len() {
                self.candidates.select_nth_unstable_by(sorted - 1, more_likely);
            }
            let end = sorted.min(self.candidates.len());
            self.candidates[..end].sort_unstable_by(more_likely);
            if let Some(nucleus) = nucleus_len(&self.candidates[..end], target) {
                return self.candidates.truncate(nucleus);
            }
            if end == self.candidates.len() {
                return; // rounding left the sum just below the target: all are in
            }
            sorted *= 8;
        }
    }

    fn keep_min_p(&mut self) {
        let least = f64::from(self.params.min_p); // the most likely candidate weighs 1
        if least > 0.0 {
            self.candidates.retain(|c| c.weight >= least);
        }
    }

    fn draw(&mut self) -> u32 {
        self.candidates.sort_unstable_by_key(|c| c.token);
        let total: f64 = self.candidates.iter().map(|c| c.weight).sum();
        let mut left = self.rng.unit() * total;
        let possible = || self.candidates.iter().filter(|c| c.weight > 0.0);
        for candidate in possible() {
            left -= candidate.weight;
            if left < 0.0 {
                return candidate.token;
            }
        }
        // Rounding may leave `left` at 0 after the last subtraction.
        possible().next_back().map_or(0, |c| c.token)
    }
}

/// The index of the largest logit, the first of equals.
///
/// # Errors
/// A logit that is NaN or +inf, or nothing but -inf.
pub fn argmax(logits: &[f32]) -> Result<u32, SamplerError> {
    let mut best: Option<(u32, f32)> = None;
    for (token, &logit) in (0u32..).zip(logits) {
        if logit.is_nan() || logit == f32::INFINITY {
            return Err(SamplerError::Logit {
                token: token as usize,
                got: logit,
            });
        }
        if logit > best.map_or(f32::NEG_INFINITY, |(_, max)| max) {
            best = Some((token, logit));
        }
    }
    let no_token = SamplerError::NoToken {
        num_logits: logits.len(),
    };
    best.map(|(token, _)| token).ok_or(no_token)
}

fn more_likely(a: &Candidate, b: &Candidate) -> Ordering {
    let by_logit = b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal); // never NaN here; 0 equals -0
    by_logit.then(a.token.cmp(&b.token))
}

/// How many of the sorted candidates reach `target` together; `None` if all of them do not.
fn nucleus_len(sorted: &[Candidate], target: f64) -> Option<usize> {
    let mut sum = 0.0;
    sorted
        .iter()
        .position(|c| {
            sum += c.weight;
            sum >= target
        })
        .map(|last| last + 1)
}

/// xoshiro256++ (Blackman and Vigna, 2019), seeded through splitmix64 as its authors advise.
#[derive(Debug, Clone)]
struct Xoshiro256 {
    state: [u64; 4],
}

impl Xoshiro256 {
    fn new(seed: u64) -> Self {
        let mut counter = seed;
        let state = std::array::from_fn(|_| {
            counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = counter;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        });
        Self { state }
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1), 53 bits.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 100_000;

    /// Logits whose softmax at temperature 1 is proportional to `weights`.
    fn logits(weights: &[f32]) -> Vec<f32> {
        weights.iter().map(|w| w.ln()).collect()
    }

    fn frequencies(params: SamplingParams, logits: &[f32]) -> Vec<f64> {
        let mut sampler = Sampler::new(params).unwrap();
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..DRAWS {
            counts[sampler.sample(logits).unwrap() as usize] += 1;
        }
        counts.iter().map(|&c| c as f64 / DRAWS as f64).collect()
    }

    /// Each frequency within five standard deviations of its binomial probability; an impossible token never comes.
    fn assert_distribution(params: SamplingParams, logits: &[f32], expected: &[f64]) {
        for (token, (got, &p)) in frequencies(params, logits).iter().zip(expected).enumerate() {
            let sigma = (p * (1.0 - p) / DRAWS as f64).sqrt();
            assert!(
                (got - p).abs() <= 5.0 * sigma,
                "token {token}: expected {p}, got {got} ({params:?})"
            );
        }
    }

    fn params(temperature: f32) -> SamplingParams {
        SamplingParams {
            temperature,
            seed: 7,
            ..SamplingParams::GREEDY
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        assert_distribution(params(1.0), &logits(&[1.0, 2.0, 7.0]), &[0.1, 0.2, 0.7]);
        // sqrt(1), sqrt(4), sqrt(9) at temperature 2
        assert_distribution(
            params(2.0),
            &logits(&[1.0, 4.0, 9.0]),
            &[1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0],
        );
        assert_distribution(params(0.5), &logits(&[1.0, 2.0]), &[0.2, 0.8]);
    }

    #[test]
    fn top_k_keeps_exactly_k_and_prefers_lower_ids_among_equals() {
        let top2 = SamplingParams {
            top_k: 2,
            ..params(1.0)
        };
        assert_distribution(
            top2,
            &logits(&[1.0, 3.0, 2.0, 6.0]),
            &[0.0, 1.0 / 3.0, 0.0, 2.0 / 3.0],
        );
        assert_distribution(top2, &logits(&[1.0, 5.0, 5.0, 5.0]), &[0.0, 0.5, 0.5, 0.0]);
        assert_distribution(
            SamplingParams { top_k: 9, ..top2 },
            &logits(&[3.0, 1.0]),
            &[0.75, 0.25],
        );
    }

    #[test]
    fn top_p_keeps_the_token_that_crosses_the_threshold() {
        let nucleus = |top_p| SamplingParams { top_p, ..params(1.0) };
        let weights = logits(&[1.0, 2.0, 7.0]); // 0.1, 0.2, 0.7
        assert_distribution(nucleus(0.69), &weights, &[0.0, 0.0, 1.0]);
        assert_distribution(nucleus(0.75), &weights, &[0.0, 2.0 / 9.0, 7.0 / 9.0]);
        assert_distribution(nucleus(0.95), &weights, &[0.1, 0.2, 0.7]);
    }

    #[test]
    fn top_p_sees_what_top_k_left() {
        // After top_k = 2: 2/3 and 1/3; 0.6 of that is the first alone, 0.7 is both.
        let weights = logits(&[4.0, 2.0, 1.0, 1.0, 1.0, 1.0]);
        let both = SamplingParams {
            top_k: 2,
            top_p: 0.7,
            ..params(1.0)
        };
        assert_distribution(both, &weights, &[2.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0, 0.0]);
        let first = SamplingParams { top_p: 0.6, ..both };
        assert_distribution(first, &weights, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn top_p_finds_a_nucleus_larger_than_its_first_selection() {
        // 3,000 equal tokens: 0.5 keeps the 1,500 lowest ids.
        let flat = vec![0.25f32; 3000];
        let mut sampler = Sampler::new(SamplingParams {
            top_p: 0.5,
            ..params(1.0)
        })
        .unwrap();
        let drawn: Vec<u32> = (0..DRAWS / 10).map(|_| sampler.sample(&flat).unwrap()).collect();
        assert!(drawn.iter().all(|&t| t < 1500));
        // 10,000 draws miss one given hundred of 1,500 with probability (1 - 1/15)^10000.
        for hundred in 0..15 {
            assert!(
                drawn.iter().any(|&t| t / 100 == hundred),
                "no draw in hundred {hundred}"
            );
        }
    }

    #[test]
    fn min_p_is_relative_to_the_most_likely() {
        let filtered = SamplingParams {
            min_p: 0.5,
            ..params(1.0)
        };
        assert_distribution(filtered, &logits(&[4.0, 2.2, 1.8]), &[4.0 / 6.2, 2.2 / 6.2, 0.0]);
        // Temperature comes first: at 2 the ratio 1.8 / 4 becomes its square root, 0.67.
        let warm = SamplingParams {
            temperature: 2.0,
            ..filtered
        };
        let roots = [4f64.sqrt(), 2.2f64.sqrt(), 1.8f64.sqrt()];
        let sum: f64 = roots.iter().sum();
        assert_distribution(warm, &logits(&[4.0, 2.2, 1.8]), &roots.map(|r| r / sum));
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        let mut sampler = Sampler::new(SamplingParams::GREEDY).unwrap();
        assert_eq!(sampler.sample(&[0.5, 2.0, -1.0, 2.0]), Ok(1));
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY, -3.0]), Ok(1));
        assert_eq!(sampler.sample(&[-0.0, 0.0]), Ok(0));
    }

    #[test]
    fn a_seed_repeats_itself_and_another_does_not() {
        let flat = vec![0.0f32; 1000];
        let run = |seed| {
            let mut sampler = Sampler::new(SamplingParams { seed, ..params(1.0) }).unwrap();
            (0..50)
                .map(|_| sampler.sample(&flat).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn the_generator_gives_the_published_sequence() {
        // splitmix64 from 0 starts with e220a8397b1dcdaf (reference implementation); xoshiro256++ from state 1, 2, 3, 4
        // starts with 41943041, 58720359 (by hand: rotl(1 + 4, 23) + 1, ...).
        assert_eq!(Xoshiro256::new(0).state[0], 0xe220_a839_7b1d_cdaf);
        let mut rng = Xoshiro256 { state: [1, 2, 3, 4] };
        assert_eq!([rng.next(), rng.next()], [41_943_041, 58_720_359]);
    }

    #[test]
    fn impossible_tokens_are_never_drawn_and_tiny_temperatures_are_greedy() {
        let mut cold = Sampler::new(params(1e-40)).unwrap();
        let mut warm = Sampler::new(params(1e30)).unwrap();
        let row = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.5, f32::NEG_INFINITY];
        for _ in 0..1000 {
            assert_eq!(cold.sample(&row), Ok(3));
            assert!([1, 3].contains(&warm.sample(&row).unwrap()));
        }
    }

    #[test]
    fn sampling_does_not_allocate_after_the_first_token() {
        let mut sampler = Sampler::new(SamplingParams {
            top_k: 40,
            top_p: 0.9,
            min_p: 0.01,
            ..params(0.8)
        })
        .unwrap();
        let row: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 1000) as f32 / 100.0).collect();
        sampler.sample(&row).unwrap();
        let (pointer, capacity) = (sampler.candidates.as_ptr(), sampler.candidates.capacity());
        for _ in 0..20 {
            sampler.sample(&row).unwrap();
        }
        assert_eq!(
            (pointer, capacity),
            (sampler.candidates.as_ptr(), sampler.candidates.capacity())
        );
    }

    #[test]
    fn bad_logits_are_errors_that_name_the_token() {
        let mut sampler = Sampler::new(params(1.0)).unwrap();
        let error = sampler.sample(&[0.0, f32::NAN]).unwrap_err();
        assert!(
            error.to_string().starts_with("logit of token 1 is NaN"),
            "{error}"
        );
        assert!(matches!(
            sampler.sample(&[f32::INFINITY]),
            Err(SamplerError::Logit { token: 0, .. })
        ));
        assert_eq!(
            sampler.sample(&[f32::NEG_INFINITY; 3]),
            Err(SamplerError::NoToken { num_logits: 3 })
        );
        assert_eq!(sampler.sample(&[]), Err(SamplerError::NoToken { num_logits: 0 }));
    }

    #[test]
    fn parameters_outside_their_range_are_refused() {
        let greedy = SamplingParams::GREEDY;
        for (bad, name) in [
            (
                SamplingParams {
                    temperature: -1.0,
                    ..greedy
                },
                "temperature",
            ),
            (
                SamplingParams {
                    temperature: f32::NAN,
                    ..greedy
                },
                "temperature",
            ),
            (
                SamplingParams {
                    temperature: f32::INFINITY,
                    ..greedy
                },
                "temperature",
            ),
            (SamplingParams { top_p: 0.0, ..greedy }, "top_p"),
            (SamplingParams { top_p: 1.5, ..greedy }, "top_p"),
            (
                SamplingParams {
                    min_p: -0.1,
                    ..greedy
                },
                "min_p",
            ),
            (
                SamplingParams {
                    min_p: f32::NAN,
                    ..greedy
                },
                "min_p",
            ),
        ] {
            let error = Sampler::new(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: expected")), "{error}");
        }
    }
}
