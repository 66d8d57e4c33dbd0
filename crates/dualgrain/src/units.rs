//! Times and sizes as a person reads them.

/// Seconds as a person says them: `45 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=9 => format!("{seconds:.1} s"),
        10..=99 => format!("{whole} s"),
        100..=5999 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Bytes with a decimal prefix (1 GB = 1e9 bytes).
pub fn bytes(size_bytes: u64) -> String {
    let size = size_bytes as f64;
    match size_bytes {
        0..=999 => format!("{size_bytes} B"),
        1_000..=999_999 => format!("{:.1} kB", size / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MB", size / 1e6),
        _ => format!("{:.2} GB", size / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_like_speech() {
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(200.0), "3 min 20 s");
        assert_eq!(bytes(13_600_000), "13.6 MB");
    }
}
