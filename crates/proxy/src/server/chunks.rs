//! Several chunks of a response as one buffer.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Chunks that are sent in one write, without being joined.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// Without empty chunks.
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

impl Chunks {
    pub(super) fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.bytes += chunk.len();
            self.chunks.push_back(chunk);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }
}

impl From<Bytes> for Chunks {
    fn from(chunk: Bytes) -> Self {
        let mut chunks = Self::default();
        chunks.push(chunk);
        chunks
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices.iter_mut().zip(&self.chunks).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.bytes, "cannot advance past the end");
        self.bytes -= count;
        while let Some(first) = self.chunks.front_mut() {
            if count < first.len() {
                first.advance(count);
                return;
            }
            count -= first.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_one_buffer() {
        for step in 1..=7 {
            let mut chunks = Chunks::default();
            for chunk in ["ab", "", "c", "defg"] {
                chunks.push(Bytes::from(chunk));
            }
            assert_eq!((chunks.len(), chunks.remaining()), (3, 7));
            let mut text = Vec::new();
            while chunks.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                let filled = chunks.chunks_vectored(&mut slices);
                assert_eq!(filled, chunks.len().min(2));
                assert_eq!(*slices[0], *chunks.chunk());
                let read = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
                let taken = step.min(read.len());
                text.extend(&read[..taken]);
                chunks.advance(taken);
            }
            assert_eq!((text.as_slice(), chunks.len()), (&b"abcdefg"[..], 0), "{step}");
        }
    }
}
