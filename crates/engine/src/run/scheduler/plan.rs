//! Which sequences take part in a step, and with how many tokens.

/// What a running sequence could do in the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Tokens it has still to run.
    pub pending: usize,
    /// Whether it decodes: one token is pending, which was generated in an earlier step.
    pub decodes: bool,
    /// When it took part last: turns are counted over all steps and sequences.
    pub last_turn: u64,
}

/// A candidate's share of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Index of the candidate.
    pub index: usize,
    /// Tokens it runs, at least one.
    pub num_tokens: usize,
}

/// Share of a step that waiting prompts get when more sequences decode than the step has room for: a quarter.
const PROMPT_SHARE: usize = 4;

/// Divides step number `step` of at most `budget` tokens. Sequences that decode come first, those that waited longest before
/// the others; prompts follow in the order of `candidates` (the oldest first) with what is left, at least a
/// quarter. So neither kind can keep the other, nor one sequence another, waiting for ever.
pub(super) fn divide(candidates: &[Candidate], budget: usize, step: u64) -> Vec<Part> {
    let of_kind = |decodes: bool| move |(_, c): &(usize, &Candidate)| c.pending > 0 && c.decodes == decodes;
    let mut decoding: Vec<(usize, &Candidate)> =
        candidates.iter().enumerate().filter(of_kind(true)).collect();
    decoding.sort_by_key(|(index, candidate)| (candidate.last_turn, *index));
    let prompts = candidates.iter().enumerate().filter(of_kind(false));
    let waiting: usize = prompts.clone().map(|(_, candidate)| candidate.pending).sum();
    // A step of one token goes to either kind in turn.
    let reserved = if budget == 1 {
        (step % 2) as usize
    } else {
        (budget / PROMPT_SHARE).max(1)
    };
    let room_to_decode = budget - reserved.min(waiting);
    let mut parts: Vec<Part> = decoding
        .iter()
        .take(room_to_decode)
        .map(|&(index, _)| Part { index, num_tokens: 1 })
        .collect();
    let mut room = budget - parts.len();
    for (index, candidate) in prompts {
        let num_tokens = candidate.pending.min(room);
        if num_tokens > 0 {
            parts.push(Part { index, num_tokens });
            room -= num_tokens;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(pending: usize, decodes: bool, last_turn: u64) -> Candidate {
        Candidate {
            pending,
            decodes,
            last_turn,
        }
    }

    fn shares(candidates: &[Candidate], budget: usize, step: u64) -> Vec<(usize, usize)> {
        let parts = divide(candidates, budget, step);
        parts.iter().map(|part| (part.index, part.num_tokens)).collect()
    }

    #[test]
    fn decoding_comes_first_and_prompts_fill_the_rest_in_order() {
        let all = [
            candidate(100, false, 0),
            candidate(1, true, 3),
            candidate(50, false, 0),
            candidate(1, true, 3),
        ];
        assert_eq!(shares(&all, 128, 4), [(1, 1), (3, 1), (0, 100), (2, 26)]);
        assert_eq!(shares(&all[1..2], 128, 4), [(0, 1)]);
        assert!(shares(&[candidate(0, false, 0)], 128, 4).is_empty());
    }

    #[test]
    fn prompts_get_a_quarter_of_a_step_that_decoding_could_fill() {
        let mut all = vec![candidate(1, true, 0); 20];
        all.push(candidate(5, false, 0));
        let parts = shares(&all, 8, 1);
        assert_eq!(parts.len(), 7);
        assert_eq!(parts.last(), Some(&(20, 2)));
        // A prompt with one token left does not keep more than that.
        all[20].pending = 1;
        assert_eq!(shares(&all, 8, 1).len(), 8);
    }

    #[test]
    fn who_decoded_last_waits_for_those_who_did_not() {
        let mut all = [candidate(1, true, 0); 5];
        let (mut served, mut turn) = ([0; 5], 0);
        for step in 1..=5 {
            for part in divide(&all, 3, step) {
                turn += 1;
                all[part.index].last_turn = turn;
                served[part.index] += 1;
            }
        }
        assert_eq!(served, [3; 5]);
    }

    #[test]
    fn steps_of_one_token_go_to_both_kinds_in_turn() {
        let all = [candidate(1, true, 0), candidate(9, false, 0)];
        assert_eq!(shares(&all, 1, 1), [(1, 1)]);
        assert_eq!(shares(&all, 1, 2), [(0, 1)]);
        assert_eq!(shares(&all[..1], 1, 1), [(0, 1)]);
    }
}
