//! Compression of responses, done once for each snapshot and page.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use program::lock;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Coding {
    Gzip,
    Zstd,
}

/// Smaller bodies are not compressed: they fit into one or two packets.
const MIN_SIZE: usize = 1024;
/// Maximum size of the cached responses of one snapshot, with their queries, in bytes.
const CACHE_SIZE: usize = 16 << 20;
/// At higher levels zstd needs more time to compress a page than the network saves.
const ZSTD_LEVEL: i32 = 3;

impl Coding {
    /// The coding that the client prefers (RFC 9110, 12.5.3); zstd if it has no preference, `None` if it prefers `identity`
    /// or supports neither.
    pub(crate) fn preferred(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let (mut gzip, mut zstd, mut identity, mut any) = (None, None, None, None);
        for part in accepted.flat_map(|value| value.split(',')) {
            let (name, parameters) = part.split_once(';').unwrap_or((part, ""));
            let weight = parameters.split(';').find_map(|parameter| {
                parameter
                    .split_once('=')
                    .and_then(|(name, weight)| name.trim().eq_ignore_ascii_case("q").then_some(weight))
            });
            let weight = weight.map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
            let weight = weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0);
            match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => gzip = Some(weight),
                "zstd" => zstd = Some(weight),
                "identity" => identity = Some(weight),
                "*" => any = Some(weight),
                _ => {}
            }
        }
        let weight = |own: Option<f32>| own.or(any).unwrap_or(0.0);
        let (gzip, zstd) = (weight(gzip), weight(zstd));
        // `*` covers codings that are not listed. With equal weights, compression is preferred.
        let plain = identity.unwrap_or(0.0);
        match () {
            () if plain > zstd.max(gzip) => None,
            () if zstd > 0.0 && zstd >= gzip => Some(Self::Zstd),
            () if gzip > 0.0 => Some(Self::Gzip),
            () => None,
        }
    }

    /// The value of `Content-Encoding`.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }

    fn encode(self, pieces: &[Bytes]) -> io::Result<Bytes> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let out = Vec::with_capacity(length / 8);
        match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
                pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
                encoder.finish().map(Bytes::from)
            }
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                pieces.iter().try_for_each(|piece| encoder.write_all(piece))?;
                encoder.finish().map(Bytes::from)
            }
        }
    }
}

/// The compressed responses of one snapshot.
#[derive(Debug, Default)]
pub struct Encoded(Mutex<Cache>);

#[derive(Debug, Default)]
struct Cache {
    responses: HashMap<(String, Coding), Bytes>,
    bytes: usize,
}

impl Encoded {
    /// The compressed form of `pieces`, the response to the query `key`; `None` if it is too small.
    pub(crate) async fn get(self: &Arc<Self>, key: String, coding: Coding, pieces: &[Bytes]) -> Option<Bytes> {
        if pieces.iter().map(Bytes::len).sum::<usize>() < MIN_SIZE {
            return None;
        }
        let key = (key, coding);
        if let Some(known) = self.lock().responses.get(&key) {
            return Some(known.clone());
        }
        let pieces = pieces.to_vec();
        // Takes a millisecond or more: too long for a runtime thread.
        let encoding = tokio::task::spawn_blocking(move || coding.encode(&pieces));
        // If compression fails, the plain response is sent.
        let encoded = encoding.await.ok()?.ok()?;
        // Keys count as well: a query may be much longer than its compressed response.
        let size = key.0.len() + encoded.len();
        let mut cache = self.lock();
        if cache.bytes + size <= CACHE_SIZE && cache.responses.insert(key, encoded.clone()).is_none() {
            cache.bytes += size;
        }
        Some(encoded)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn preferred(accept: &str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, accept.parse().unwrap());
        Coding::preferred(&headers)
    }

    #[test]
    fn the_preferred_coding_of_the_client_is_used() {
        for (accept, coding) in [
            ("", None),
            ("identity", None),
            ("br", None),
            ("gzip", Some(Coding::Gzip)),
            ("GZip ; q=0.5", Some(Coding::Gzip)),
            ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
            ("gzip;q=1.0, zstd;q=0.5", Some(Coding::Gzip)),
            ("zstd;q=0, gzip;q=0", None),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.5, zstd;q=0", Some(Coding::Gzip)),
            ("gzip;q=nonsense", None),
            ("gzip;Q=0, zstd; Q=0.0", None),
            ("identity;q=1, gzip;q=0.5", None),
            ("gzip;q=0.5, identity", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Coding::Gzip)),
            ("identity;q=0.5, gzip;q=0.8, zstd;q=0.2", Some(Coding::Gzip)),
            ("identity;q=0.5, *;q=0.8", Some(Coding::Zstd)),
            ("identity;q=0, gzip", Some(Coding::Gzip)),
            ("gzip;q=NaN", None),
            ("gzip;q=2, zstd;q=0.1", Some(Coding::Zstd)),
            ("gzip;Q=0.5, zstd;Q=0.1", Some(Coding::Gzip)),
        ] {
            assert_eq!(preferred(accept), coding, "{accept}");
        }
        assert_eq!(Coding::preferred(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn a_response_is_compressed_once_without_loss() {
        let encoded = Arc::new(Encoded::default());
        let pieces = [Bytes::from("x".repeat(3000)), Bytes::from("y".repeat(3000))];
        let gzip = encoded.get("k".into(), Coding::Gzip, &pieces).await.unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text.as_bytes(), pieces.concat());
        let zstd = encoded.get("k".into(), Coding::Zstd, &pieces).await.unwrap();
        assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), pieces.concat());
        let again = encoded.get("k".into(), Coding::Zstd, &[Bytes::from("z".repeat(3000))]).await.unwrap();
        assert_eq!(again, zstd, "cached responses are not compressed again");
        assert_eq!(encoded.get("small".into(), Coding::Gzip, &[Bytes::from_static(b"{}")]).await, None);
    }

    #[tokio::test]
    async fn the_cache_is_limited_for_long_queries_with_short_responses_too() {
        let encoded = Arc::new(Encoded::default());
        let answer = [Bytes::from("x".repeat(MIN_SIZE))];
        let length = 1 << 20;
        for number in 0..20 {
            let key = format!("{number}{}", "k".repeat(length));
            assert!(encoded.get(key, Coding::Gzip, &answer).await.is_some());
        }
        let kept = encoded.lock().responses.keys().map(|(key, _)| key.len()).sum::<usize>();
        assert!((length..=CACHE_SIZE).contains(&kept), "{kept} bytes of keys");
    }
}
