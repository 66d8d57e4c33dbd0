//! Calibration text, cut into windows.

use std::ops::Range;

use crate::error::QuantError;

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
