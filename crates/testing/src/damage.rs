//! Random damage that repeats with its seed.

use dualgrain_device::cases::Random;

/// The first bytes of a file are its header, where most can go wrong: half of the damage falls there.
const HEADER_BYTES: usize = 4096;

/// A copy of `whole` with one to eight changes: a bit flipped or a byte replaced, a piece cut out, doubled or overwritten
/// with digits, the end cut off.
pub fn damage(random: &mut Random, whole: &[u8]) -> Vec<u8> {
    let mut data = whole.to_vec();
    for _ in 0..1 + random.below(8) {
        if !data.is_empty() {
            change(random, &mut data);
        }
    }
    data
}

fn change(random: &mut Random, data: &mut Vec<u8>) {
    let reach = match random.below(2) {
        0 => data.len().min(HEADER_BYTES),
        _ => data.len(),
    };
    let at = random.below(reach);
    let end = (at + 1 + random.below(32)).min(data.len());
    match random.below(6) {
        0 => data[at] ^= 1 << random.below(8),
        1 => data[at] = random.below(256) as u8,
        2 => drop(data.drain(at..end)),
        3 => data.splice(at..at, data[at..end].to_vec()).for_each(drop),
        4 => data[at..end].fill(b'0' + random.below(10) as u8),
        _ => data.truncate(at),
    }
}

/// What may stand in the place of a value in JSON or in a template.
const VALUES: [&str; 16] = [
    "null",
    "-1",
    "4294967296",
    "\"\"",
    "[]",
    "{}",
    "true",
    "0",
    "1e400",
    "\"\\u0000\"",
    "\"é\"",
    "\"(\"",
    "99999",
    "[[[[",
    "\"a\"",
    "\u{2029}",
];

/// A copy of a text of values with one change: a value replaced, a character overwritten, or the end cut off.
///
/// # Panics
/// If the text is empty.
pub fn damage_text(random: &mut Random, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    match random.below(8) {
        0 => chars.truncate(random.below(chars.len())),
        1 => {
            let symbols: Vec<char> = "{}[]\":,%-(|)é\u{0}9".chars().collect();
            let at = random.below(chars.len());
            chars[at] = symbols[random.below(symbols.len())];
        }
        _ => replace_value(random, &mut chars),
    }
    chars.into_iter().collect()
}

/// A value stands between a character that opens or parts values and one that closes or parts them.
fn replace_value(random: &mut Random, chars: &mut Vec<char>) {
    let opens = |&at: &usize| [':', '[', ',', '('].contains(&chars[at]);
    let starts: Vec<usize> = (0..chars.len()).filter(opens).collect();
    if starts.is_empty() {
        return;
    }
    let start = starts[random.below(starts.len())] + 1;
    let ends = |c: &char| [',', '}', ']', ')'].contains(c);
    let length = chars[start..].iter().position(ends).unwrap_or(0);
    chars.splice(start..start + length, VALUES[random.below(VALUES.len())].chars());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_repeats_with_its_seed_and_takes_what_is_short() {
        let whole: Vec<u8> = (0..=255).collect();
        let damaged = |seed| damage(&mut Random(seed), &whole);
        assert_eq!(damaged(1), damaged(1));
        assert!((0..100).filter(|&seed| damaged(seed) != whole).count() > 95);
        for seed in 0..1000 {
            let _ = damage(&mut Random(seed), &[7]);
            let _ = damage_text(&mut Random(seed), "é");
        }
        assert!(damage(&mut Random(1), &[]).is_empty());
    }

    #[test]
    fn values_of_a_text_are_replaced() {
        let text = r#"{"a":[1,2],"b":"c"}"#;
        let damaged: Vec<String> = (0..2000)
            .map(|seed| damage_text(&mut Random(seed), text))
            .collect();
        assert!(damaged.iter().any(|text| text == r#"{"a":[1,null],"b":"c"}"#));
        assert!(
            damaged
                .iter()
                .any(|text| text.starts_with(r#"{"a":4294967296,2],"#))
        );
    }
}
