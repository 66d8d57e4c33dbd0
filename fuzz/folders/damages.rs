//! What can happen to a file: bytes change, values are exchanged, or something else lies in its place.

use std::fs;
use std::path::Path;

use dualgrain_device::cases::Random;
use dualgrain_testing::{damage, damage_text};
use serde_json::{Value, json};

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:\
    4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>404</body></html>\n";

/// Damages the file at `path`, whose sound bytes are `whole`, and says how.
pub fn damage_file(random: &mut Random, path: &Path, whole: &[u8]) -> String {
    if random.below(40) == 0 {
        fs::remove_file(path).expect("a file");
        if random.below(2) == 0 {
            return "is missing".into();
        }
        fs::create_dir(path).expect("a temporary folder");
        return "is a folder".into();
    }
    let is = |ending: &str| path.extension().is_some_and(|own| own == ending);
    let (what, bytes) = match random.below(10) {
        0..4 => ("has other bytes".into(), damage(random, whole)),
        4 => in_its_place(random, whole),
        _ if is("json") => damage_json(random, whole),
        _ if is("safetensors") => damage_header(random, whole),
        _ => (
            "has other words".into(),
            damage_text(random, &String::from_utf8_lossy(whole)).into_bytes(),
        ),
    };
    fs::write(path, bytes).expect("writing to a temporary folder");
    what
}

/// What people find in the place of a file.
fn in_its_place(random: &mut Random, whole: &[u8]) -> (String, Vec<u8>) {
    let text = String::from_utf8_lossy(whole);
    let (what, bytes) = match random.below(10) {
        0 => ("is a Git LFS pointer", POINTER.as_bytes().to_vec()),
        1 => ("is a web page", PAGE.as_bytes().to_vec()),
        2 => ("is empty", Vec::new()),
        3 => ("has a byte order mark", [b"\xEF\xBB\xBF", whole].concat()),
        4 => ("has other line ends", text.replace('\n', "\r\n").into_bytes()),
        5 => (
            "is UTF-16",
            text.chars()
                .take(4_000)
                .flat_map(|c| (c as u32 as u16).to_le_bytes())
                .collect(),
        ),
        6 => ("is cut off", whole[..random.below(whole.len().max(1))].to_vec()),
        7 => ("stands there twice", [whole, whole].concat()),
        8 => ("is zeros", vec![0; whole.len()]),
        _ => (
            "is compressed",
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec(),
        ),
    };
    (what.into(), bytes)
}

/// One to three values of the JSON are changed, by structure.
fn damage_json(random: &mut Random, whole: &[u8]) -> (String, Vec<u8>) {
    let Ok(mut value) = serde_json::from_slice::<Value>(whole) else {
        return ("has other bytes".into(), damage(random, whole));
    };
    let mut done = Vec::new();
    for _ in 0..1 + random.below(3) {
        done.push(change(random, &mut value, 0));
    }
    let text = value.to_string();
    let text = match random.below(12) {
        0 => text.replacen(':', ":1e400,\"again\":", 1),
        1 => text.replacen('{', "{\"model_type\":\"llama\",", 1),
        _ => text,
    };
    (done.join(", "), text.into_bytes())
}

/// Walks to a random place in the value and changes what is there.
fn change(random: &mut Random, value: &mut Value, depth: usize) -> String {
    let goes_on = random.below(3) > 0 || depth == 0;
    match value {
        Value::Object(fields) if goes_on && !fields.is_empty() => {
            let name = fields
                .keys()
                .nth(random.below(fields.len()))
                .cloned()
                .unwrap_or_default();
            match random.below(6) {
                0 => {
                    fields.remove(&name);
                    format!("without `{name}`")
                }
                1 => {
                    let moved = fields.remove(&name).unwrap_or_default();
                    fields.insert(format!("{name}x"), moved);
                    format!("`{name}x`")
                }
                _ => format!("{name}.{}", change(random, &mut fields[&name], depth + 1)),
            }
        }
        Value::Array(items) if goes_on && !items.is_empty() => {
            let at = random.below(items.len());
            format!("{at}.{}", change(random, &mut items[at], depth + 1))
        }
        other => {
            *other = another(random, other);
            let text = other.to_string();
            text.chars().take(24).collect()
        }
    }
}

/// What a value may be instead.
fn another(random: &mut Random, value: &Value) -> Value {
    let number = value.as_f64().unwrap_or(1.0);
    match random.below(22) {
        0 => Value::Null,
        1 => json!(-1),
        2 => json!(0),
        3 => json!(1e308),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(4_294_967_296_u64),
        7 => json!(0.5),
        8 => json!(true),
        9 => json!(""),
        10 => json!("a\u{0}é\u{202e}"),
        11 => json!([]),
        12 => json!({}),
        13 => json!([value]),
        14 => json!({ "value": value }),
        15 => (0..100 + random.below(60)).fold(Value::Null, |inner, _| json!([inner])),
        16 => json!("x".repeat(100_000)),
        17 => json!(value.to_string()),
        18 => json!(number * 2.0),
        19 => json!(number as i64 + 1),
        20 => json!(number as i64 - 1),
        _ => json!(vec![value; 40]),
    }
}

/// The header of a safetensors file is JSON behind its length.
fn damage_header(random: &mut Random, whole: &[u8]) -> (String, Vec<u8>) {
    let length = whole
        .first_chunk::<8>()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes) as usize);
    let Some((header, data)) = whole.get(8..).and_then(|rest| rest.split_at_checked(length)) else {
        return ("has other bytes".into(), damage(random, whole));
    };
    let (what, header) = damage_json(random, header);
    let length = match random.below(10) {
        0 => [0, 1, u64::MAX, 1 << 40, 100_000_001][random.below(5)],
        _ => header.len() as u64,
    };
    (
        format!("header {what}"),
        [&length.to_le_bytes()[..], &header, data].concat(),
    )
}
