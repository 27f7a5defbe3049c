//! Content-defined chunking with a rolling Rabin fingerprint, cutting where restic cuts.

use crate::polynomial::Polynomial;

const WINDOW: usize = 64;
/// No chunk but the last is shorter.
pub(crate) const MIN_SIZE: usize = 512 * 1024;
/// No chunk is longer.
pub(crate) const MAX_SIZE: usize = 8 * 1024 * 1024;
/// A cut where the lowest 20 bits of the fingerprint are zero: once in 1 MiB on average.
const SPLIT_MASK: u64 = (1 << 20) - 1;
/// The top eight bits of a fingerprint, which the next byte pushes out.
const SHIFT: u32 = Polynomial::degree() - 8;

/// What a polynomial needs computed once: 4 KiB, shared by all chunkers of a repository.
pub(crate) struct Tables {
    /// The fingerprint of a byte followed by 63 zeros: taking it away slides that byte out of the window.
    out: [u64; 256],
    /// Reduces the eight bits above the degree with one exclusive or.
    reduce: [u64; 256],
}

impl Tables {
    pub(crate) fn new(polynomial: Polynomial) -> Self {
        let mut tables = Self { out: [0; 256], reduce: [0; 256] };
        for (byte, (out, reduce)) in (0_u64..).zip(tables.out.iter_mut().zip(&mut tables.reduce)) {
            *out = (0..WINDOW - 1).fold(polynomial.reduce(byte), |hash, _| polynomial.reduce(hash << 8));
            let above = byte << Polynomial::degree();
            *reduce = polynomial.reduce(above) | above;
        }
        tables
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tables")
    }
}

/// Finds the cuts in one file's bytes, fed in pieces of any length.
pub(crate) struct Chunker<'a> {
    tables: &'a Tables,
    window: [u8; WINDOW],
    position: usize,
    fingerprint: u64,
    /// Bytes of the current chunk seen so far.
    length: usize,
}

impl<'a> Chunker<'a> {
    pub(crate) fn new(tables: &'a Tables) -> Self {
        let mut chunker = Self { tables, window: [0; WINDOW], position: 0, fingerprint: 0, length: 0 };
        chunker.reset();
        chunker
    }

    /// Starts a chunk: the window holds a single one, as restic's does, so that leading zeros count.
    fn reset(&mut self) {
        self.window = [0; WINDOW];
        self.position = 0;
        self.fingerprint = 0;
        self.length = 0;
        self.slide(1);
    }

    fn slide(&mut self, byte: u8) {
        let leaving = std::mem::replace(&mut self.window[self.position], byte);
        self.position = (self.position + 1) % WINDOW;
        let hash = self.fingerprint ^ self.tables.out[usize::from(leaving)];
        // The index has at most eight bits: the fingerprint's degree is below the polynomial's.
        let top = (hash >> SHIFT) as usize & 0xff;
        self.fingerprint = ((hash << 8) | u64::from(byte)) ^ self.tables.reduce[top];
    }

    /// How many of these bytes end the current chunk, or `None` when all of them belong to it and it goes on.
    pub(crate) fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        // Nothing before the last window of the shortest chunk can matter to a cut.
        let skip = (MIN_SIZE - WINDOW).saturating_sub(self.length).min(data.len());
        self.length += skip;
        for (at, byte) in data.iter().enumerate().skip(skip) {
            self.slide(*byte);
            self.length += 1;
            if self.length >= MIN_SIZE && (self.fingerprint & SPLIT_MASK == 0 || self.length >= MAX_SIZE) {
                self.reset();
                return Some(at + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuts(data: &[u8], piece: usize) -> Vec<usize> {
        let tables = Tables::new("3DA3358B4DC173".parse().unwrap());
        let mut chunker = Chunker::new(&tables);
        let (mut lengths, mut current) = (Vec::new(), 0);
        for mut part in data.chunks(piece) {
            while let Some(cut) = chunker.next_cut(part) {
                lengths.push(current + cut);
                current = 0;
                part = &part[cut..];
            }
            current += part.len();
        }
        if current > 0 {
            lengths.push(current);
        }
        lengths
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    #[test]
    fn zeros_are_cut_at_the_shortest_length() {
        assert_eq!(cuts(&vec![0; 3 * MIN_SIZE + 5], 100_000), [MIN_SIZE, MIN_SIZE, MIN_SIZE, 5]);
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive() {
        let data = noise(24 << 20);
        let whole = cuts(&data, data.len());
        assert!(whole.len() > 5);
        assert!(whole[..whole.len() - 1].iter().all(|length| (MIN_SIZE..=MAX_SIZE).contains(length)));
        for piece in [4096, 65_537, MIN_SIZE - 64, MIN_SIZE] {
            assert_eq!(cuts(&data, piece), whole, "{piece}");
        }
    }

    #[test]
    fn cuts_find_their_places_again_after_an_insertion() {
        let data = noise(16 << 20);
        let mut shifted = noise(1000);
        shifted.extend_from_slice(&data);
        let ends = |lengths: Vec<usize>, base: usize| -> Vec<usize> {
            lengths
                .iter()
                .scan(0, |sum, length| {
                    *sum += length;
                    Some(*sum)
                })
                .map(|end| end.wrapping_sub(base))
                .collect()
        };
        let (original, moved) = (ends(cuts(&data, 1 << 20), 0), ends(cuts(&shifted, 1 << 20), 1000));
        let same = original.iter().filter(|end| moved.contains(end)).count();
        assert!(same * 2 > original.len(), "{original:?} against {moved:?}");
    }
}
