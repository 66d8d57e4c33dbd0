//! Stop strings in a text that comes piece by piece.

use std::ops::Range;

/// Ends a text before the first stop string. Text that may be the beginning of one is held back until the next
/// piece decides.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Undecided text; its first `num_ready` bytes can be given out.
    held: String,
    num_ready: usize,
    /// Parts of the held text that are matched and not given out: special tokens as they are written.
    hidden: Vec<Range<usize>>,
}

impl StopMatcher {
    /// Watches for any of `stops`.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops,
            held: String::new(),
            num_ready: 0,
            hidden: Vec::new(),
        }
    }

    /// Takes a special token as it is written: a stop string may hold it, and the text does not. True if a stop string is complete.
    pub fn push_hidden(&mut self, written: &str) -> bool {
        if !self.stops.iter().any(|stop| stop.contains(written)) {
            return false;
        }
        self.hidden.push(self.held.len()..self.held.len() + written.len());
        self.push(written)
    }

    /// Takes a piece; true if a stop string is complete. Then only the text before it becomes ready.
    pub fn push(&mut self, piece: &str) -> bool {
        self.held.push_str(piece);
        let first_stop = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()))
            .min();
        self.num_ready = first_stop.unwrap_or_else(|| self.undecided_from());
        first_stop.is_some()
    }

    /// Where the longest end of the text begins that some stop string begins with.
    fn undecided_from(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let earliest = self
            .held
            .ceil_char_boundary(self.held.len().saturating_sub(longest));
        let may_begin = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let end = self.held.len();
        (earliest..end)
            .find(|&at| self.held.is_char_boundary(at) && may_begin(at))
            .unwrap_or(end)
    }

    /// Makes everything ready: no piece will follow.
    pub fn release(&mut self) {
        self.num_ready = self.held.len();
    }

    /// The text that is certain to come before any stop string; it is given out once.
    pub fn take_ready(&mut self) -> String {
        let mut ready: String = self.held.drain(..self.num_ready).collect();
        let shift = |at: usize| at.saturating_sub(self.num_ready);
        for hidden in self.hidden.iter().rev() {
            let end = hidden.end.min(ready.len());
            if hidden.start < end {
                ready.replace_range(hidden.start..end, "");
            }
        }
        let left = self
            .hidden
            .iter()
            .map(|hidden| shift(hidden.start)..shift(hidden.end));
        self.hidden = left.filter(|hidden| !hidden.is_empty()).collect();
        self.num_ready = 0;
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out piece by piece, and whether a stop string ended it.
    fn filter(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut matcher = StopMatcher::new(strings(stops));
        let mut out = Vec::new();
        for piece in pieces {
            let stopped = matcher.push(piece);
            out.push(matcher.take_ready());
            if stopped {
                return (out, true);
            }
        }
        matcher.release();
        out.push(matcher.take_ready());
        (out, false)
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn text_that_may_begin_a_stop_string_is_held_back_until_it_is_decided() {
        assert_eq!(
            filter(&["END"], &["a", "E", "N", "x", "b"]),
            (strings(&["a", "", "", "ENx", "b", ""]), false)
        );
        assert_eq!(filter(&["END"], &["aE", "ND b"]), (strings(&["a", ""]), true));
        assert_eq!(filter(&["END"], &["EEN", "D"]), (strings(&["E", ""]), true));
        assert_eq!(filter(&["END"], &["tail EN"]), (strings(&["tail ", "EN"]), false));
    }

    #[test]
    fn the_first_of_several_stop_strings_ends_the_text() {
        assert_eq!(filter(&["two", "one"], &["1 one two"]), (strings(&["1 "]), true));
        assert_eq!(filter(&["abcd", "bc"], &["ab", "c"]), (strings(&["", "a"]), true));
        assert_eq!(
            filter(&["abcd", "bcx"], &["abc", "x"]),
            (strings(&["", "a"]), true)
        );
    }

    #[test]
    fn stop_strings_may_cross_pieces_and_contain_any_characters() {
        assert_eq!(
            filter(&["\n\n"], &["a\n", "b\n", "\n"]),
            (strings(&["a", "\nb", ""]), true)
        );
        assert_eq!(filter(&["é日"], &["né", "日"]), (strings(&["n", ""]), true));
        assert_eq!(
            filter(&["é日"], &["né", "本"]),
            (strings(&["n", "é本", ""]), false)
        );
        assert_eq!(filter(&["aab"], &["aaa", "ab"]), (strings(&["a", "a"]), true));
    }

    #[test]
    fn special_tokens_are_matched_and_never_given_out() {
        let stops = |stops: &[&str]| StopMatcher::new(strings(stops));
        let mut alone = stops(&["<|end|>"]);
        assert!(!alone.push("text"));
        assert!(alone.push_hidden("<|end|>"));
        assert_eq!(alone.take_ready(), "text");

        let mut inside = stops(&["a<|end|>\n"]);
        assert!(!inside.push("b a") && !inside.push_hidden("<|end|>"));
        assert_eq!(inside.take_ready(), "b ");
        assert!(inside.push("\n"));
        assert_eq!(inside.take_ready(), "");

        let mut other = stops(&["<|end|>!"]);
        assert!(!other.push("x") && !other.push_hidden("<|end|>") && !other.push("y"));
        assert!(!other.push_hidden("<|role|>") && !other.push_hidden("<|end|>"));
        other.release();
        assert_eq!(other.take_ready(), "xy");

        let mut part = stops(&["<|end|>!", "zzz"]);
        assert!(!part.push("x") && !part.push_hidden("<|end|>") && !part.push("?z"));
        assert_eq!(part.take_ready(), "x?");
        part.release();
        assert_eq!(part.take_ready(), "z");
    }

    #[test]
    fn without_stop_strings_nothing_is_held_back() {
        assert_eq!(filter(&[], &["a", "b"]), (strings(&["a", "b", ""]), false));
    }
}
