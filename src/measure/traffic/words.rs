//! Prompts of random words, of about as many tokens as are wanted.

/// Words that are a token or two in most vocabularies.
const WORDS: [&str; 96] = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
    "hand",
    "part",
    "place",
    "case",
    "week",
    "company",
    "system",
    "program",
    "question",
    "work",
    "government",
    "number",
    "night",
    "point",
    "home",
    "water",
    "room",
    "mother",
    "area",
    "money",
    "story",
    "fact",
    "month",
    "lot",
    "right",
    "study",
    "book",
    "eye",
    "job",
    "word",
    "business",
    "issue",
    "side",
    "kind",
    "head",
    "house",
    "service",
    "friend",
    "father",
    "power",
    "hour",
    "game",
    "line",
    "end",
    "member",
    "law",
    "car",
    "city",
    "community",
    "name",
    "president",
    "team",
    "minute",
    "idea",
    "body",
    "information",
    "back",
    "parent",
    "face",
    "others",
    "level",
    "office",
    "door",
    "health",
    "person",
    "art",
    "war",
    "history",
    "party",
    "result",
    "change",
    "morning",
    "reason",
    "research",
    "girl",
    "guy",
    "moment",
    "air",
];

/// How many tokens a server makes of words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    /// Of a prompt without words: marks of a template, a token that begins it.
    pub overhead: f64,
    /// Of a word, on average.
    pub per_word: f64,
}

/// Random numbers, the same for the same seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers of their own for each stream of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Evenly from 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Words with spaces between them.
    pub fn words(&mut self, count: usize) -> String {
        let mut text = String::with_capacity(7 * count);
        for index in 0..count {
            if index > 0 {
                text.push(' ');
            }
            text.push_str(WORDS[(self.next() % WORDS.len() as u64) as usize]);
        }
        text
    }

    /// A whole number around `mean`, evenly from `spread` below to `spread` above (as shares of it), at least 1.
    pub fn around(&mut self, mean: usize, spread: f64) -> usize {
        let factor = 1.0 + spread * (2.0 * self.share() - 1.0);
        ((mean as f64 * factor).round() as usize).max(1)
    }
}

impl Measure {
    /// A token a word, for servers that do not count.
    pub const UNKNOWN: Self = Self {
        overhead: 0.0,
        per_word: 1.0,
    };

    /// Of two prompts, each with its words and its tokens; `None` where that says nothing.
    pub fn of(few: (usize, usize), many: (usize, usize)) -> Option<Self> {
        let tokens = many.1.checked_sub(few.1).filter(|&tokens| tokens > 0)?;
        let per_word = tokens as f64 / many.0.checked_sub(few.0).filter(|&words| words > 0)? as f64;
        Some(Self {
            overhead: few.1 as f64 - per_word * few.0 as f64,
            per_word,
        })
    }

    /// Words of a prompt of about so many tokens, at least one.
    pub fn words(&self, tokens: usize) -> usize {
        let words = (tokens as f64 - self.overhead) / self.per_word;
        words.round().max(1.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_tells_the_words_and_streams_differ() {
        let words = |seed, stream| Random::new(seed, stream).words(20);
        assert_eq!(words(1, 2), words(1, 2));
        assert_ne!(words(1, 2), words(1, 3));
        assert_ne!(words(1, 2), words(2, 2));
        assert_eq!(words(0, 0).split(' ').count(), 20);
    }

    #[test]
    fn lengths_lie_where_they_were_asked_for() {
        let mut random = Random::new(0, 0);
        let lengths: Vec<usize> = (0..1000).map(|_| random.around(100, 0.5)).collect();
        assert!(lengths.iter().all(|length| (50..=150).contains(length)));
        let mean = lengths.iter().sum::<usize>() as f64 / 1000.0;
        // Of 1,000 even draws the mean scatters by 0.9.
        assert!((mean - 100.0).abs() < 5.0, "{mean}");
        assert_eq!(random.around(100, 0.0), 100);
        assert_eq!(random.around(1, 0.9), 1);
    }

    #[test]
    fn two_prompts_tell_what_words_take() {
        let measure = Measure::of((10, 25), (110, 175)).unwrap();
        assert_eq!((measure.overhead, measure.per_word), (10.0, 1.5));
        assert_eq!((measure.words(160), measure.words(3)), (100, 1));
        assert_eq!(Measure::of((10, 0), (110, 0)), None);
    }
}
