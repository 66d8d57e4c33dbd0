//! Random numbers that are a function of where they are used, so that no device keeps a generator's state.

/// 64 random bits for a position of a sequence with this seed: the first two words of Philox 4x32-10 (Salmon et al.,
/// "Parallel random numbers: as easy as 1, 2, 3", 2011) with the seed as key and the position as counter.
pub fn random_u64(seed: u64, position: u64) -> u64 {
    let counter = [position as u32, (position >> 32) as u32, 0, 0];
    let [low, high, ..] = philox([seed as u32, (seed >> 32) as u32], counter);
    u64::from(low) | u64::from(high) << 32
}

fn philox(mut key: [u32; 2], mut counter: [u32; 4]) -> [u32; 4] {
    for _ in 0..10 {
        let product = |factor: u32, word: u32| u64::from(factor) * u64::from(word);
        let (even, odd) = (product(0xd251_1f53, counter[0]), product(0xcd9e_8d57, counter[2]));
        counter = [
            (odd >> 32) as u32 ^ counter[1] ^ key[0],
            odd as u32,
            (even >> 32) as u32 ^ counter[3] ^ key[1],
            even as u32,
        ];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_vectors() {
        let expected = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
        assert_eq!(philox([0; 2], [0; 4]), expected);
        let expected = [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd];
        assert_eq!(philox([u32::MAX; 2], [u32::MAX; 4]), expected);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox([0xa409_3822, 0x299f_31d0], counter), expected);
    }

    #[test]
    fn seed_and_position_both_matter() {
        let numbers = [(0, 0), (0, 1), (1, 0), (1 << 40, 0), (0, 1 << 40)].map(|(s, p)| random_u64(s, p));
        for (i, number) in numbers.iter().enumerate() {
            assert!(!numbers[..i].contains(number));
        }
    }
}
