//! Calibration text, cut into windows.

use std::ops::Range;

use crate::error::QuantError;

/// Windows that are held out from calibration, and tokens in each, where there is room for so many: enough to tell sensitive linears from
/// others.
pub const HELD_OUT_WINDOWS: usize = 8;
const HELD_OUT_TOKENS: usize = 256;

/// Tokens of a held-out window beside calibration windows of `len`.
pub fn held_out_tokens(len: usize) -> usize {
    len.min(HELD_OUT_TOKENS)
}

/// Windows cut from a text of tokens, all of one length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Where they lie in the text.
    pub ranges: Vec<Range<usize>>,
    /// What a user should know: fewer or shorter windows than asked for.
    pub notice: Option<String>,
}

impl Windows {
    /// `num` windows of `len` tokens, evenly spaced over `num_tokens`; fewer when the text is short, one shorter window
    /// when it is shorter than that.
    ///
    /// # Errors
    /// [`QuantError::NoCalibration`] without tokens.
    pub fn evenly_spaced(num_tokens: usize, num: usize, len: usize) -> Result<Self, QuantError> {
        if num_tokens == 0 || num == 0 || len == 0 {
            return Err(QuantError::NoCalibration);
        }
        let window_len = len.min(num_tokens);
        let count = num.min(num_tokens / window_len);
        let room = num_tokens - window_len;
        let start = |index: usize| if count > 1 { index * room / (count - 1) } else { 0 };
        let notice = (count < num || window_len < len).then(|| {
            format!(
                "the calibration text has {num_tokens} tokens, {num} windows of {len} were asked for: using {count} of \
                 {window_len}; a longer text quantizes better"
            )
        });
        let ranges = (0..count)
            .map(|index| start(index)..start(index) + window_len)
            .collect();
        Ok(Self { ranges, notice })
    }

    /// As [`Self::evenly_spaced`], but so far apart that [`Self::held_out`] finds room between them: fewer when the text is short.
    ///
    /// # Errors
    /// [`QuantError::NothingHeldOut`] where the text has no room for two windows and something between them.
    pub fn with_gaps(num_tokens: usize, num: usize, len: usize) -> Result<Self, QuantError> {
        if num < 2 {
            return Err(QuantError::OneWindow);
        }
        let least = len + held_out_tokens(len);
        let room = num_tokens.saturating_sub(len);
        let count = num.min(1 + room / least.max(1));
        if count < 2 {
            return Err(QuantError::NothingHeldOut {
                got: num_tokens,
                expected: len + least,
                window_tokens: len,
            });
        }
        let windows = Self::evenly_spaced(num_tokens, count, len)?;
        let notice = (count < num).then(|| {
            format!(
                "the calibration text has {num_tokens} tokens, {num} windows of {len} with held-out text between them were asked \
                 for: using {count}; a longer text quantizes better"
            )
        });
        Ok(Self { notice, ..windows })
    }

    /// Windows between these, of text that none of them touches: at most [`HELD_OUT_WINDOWS`], evenly spread over the gaps.
    pub fn held_out(&self) -> Self {
        let len = held_out_tokens(self.window_len());
        let gaps = self.ranges.windows(2).map(|pair| pair[0].end..pair[1].start);
        let gaps: Vec<_> = gaps.filter(|gap| gap.len() >= len).collect();
        let count = gaps.len().min(HELD_OUT_WINDOWS);
        let middle = |gap: &Range<usize>| {
            let start = gap.start + (gap.len() - len) / 2;
            start..start + len
        };
        Self {
            ranges: (0..count)
                .map(|index| middle(&gaps[(2 * index + 1) * gaps.len() / (2 * count)]))
                .collect(),
            notice: None,
        }
    }

    /// All of them so many times, one round after the other.
    pub fn repeated(&self, times: usize) -> Self {
        Self {
            ranges: vec![self.ranges.clone(); times].concat(),
            notice: None,
        }
    }

    /// Tokens in a window.
    pub fn window_len(&self) -> usize {
        self.ranges.first().map_or(0, Range::len)
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_span_the_whole_text_evenly() {
        let windows = Windows::evenly_spaced(1000, 4, 100).unwrap();
        assert_eq!(windows.ranges, [0..100, 300..400, 600..700, 900..1000]);
        assert_eq!(windows.notice, None);
    }

    #[test]
    fn held_out_windows_touch_no_calibration_window() {
        for (num_tokens, num, len) in [
            (100_000, 128, 512),
            (3_000, 128, 512),
            (1_300, 2, 512),
            (700, 9, 20),
        ] {
            let windows = Windows::with_gaps(num_tokens, num, len).unwrap();
            let held_out = windows.held_out();
            assert!(!held_out.ranges.is_empty() && held_out.len() <= HELD_OUT_WINDOWS);
            for range in &held_out.ranges {
                assert!(range.len() == held_out_tokens(len) && range.end <= num_tokens);
                let apart = |other: &Range<usize>| range.end <= other.start || other.end <= range.start;
                assert!(windows.ranges.iter().all(apart), "{num_tokens} {num} {len}");
            }
            assert_eq!(windows.notice.is_some(), windows.len() < num);
        }
        assert!(matches!(
            Windows::with_gaps(1_279, 9, 512),
            Err(QuantError::NothingHeldOut { expected: 1_280, .. })
        ));
    }

    #[test]
    fn short_texts_give_fewer_windows_and_say_so() {
        let few = Windows::evenly_spaced(250, 4, 100).unwrap();
        assert_eq!(few.ranges, [0..100, 150..250]);
        assert!(few.notice.unwrap().contains("using 2 of 100"));
        let one = Windows::evenly_spaced(7, 4, 100).unwrap();
        assert_eq!(one.ranges.first(), Some(&(0..7)));
        assert!(one.notice.is_some());
        assert!(matches!(
            Windows::evenly_spaced(0, 4, 100),
            Err(QuantError::NoCalibration)
        ));
    }
}
