//! Range requests (RFC 9110 §14) and their conditions (§13), for one range of bytes.

use axum::http::{HeaderMap, HeaderName, Method, header};

/// What part of a body of known size is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// 412: the caller wants what this is not.
    Failed,
    /// 304: the caller has it.
    NotModified,
    /// 200.
    Whole,
    /// 206: bytes `start..end`.
    Part {
        /// First byte.
        start: u64,
        /// One after the last byte; greater than `start`.
        end: u64,
    },
    /// 416.
    Unsatisfiable,
}

/// Reads `If-Match`, `If-None-Match`, `If-Range` and `Range`, in the order of RFC 9110 §13.2.2, for a body of `size` bytes with this strong
/// `etag` (quotes included).
pub(super) fn select(method: &Method, headers: &HeaderMap, etag: &str, size: u64) -> Selection {
    if headers.contains_key(header::IF_MATCH) && !lines(headers, header::IF_MATCH).any(|tags| has(tags, etag)) {
        return Selection::Failed;
    }
    if lines(headers, header::IF_NONE_MATCH).any(|tags| names(tags, etag)) {
        return Selection::NotModified;
    }
    // Only GET has ranges (§14.2). Whoever gives two is answered as one who gives a list.
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None, &Method::GET) = (ranges.next(), ranges.next(), method) else { return Selection::Whole };
    // A date never fits, for no Last-Modified is sent: the whole body is the safe answer (§13.1.5).
    if headers.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes().trim_ascii() != etag.as_bytes()) {
        return Selection::Whole;
    }
    range.to_str().map_or(Selection::Whole, |range| parse(range, size))
}

/// All lines of a header that are text.
fn lines(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok())
}

/// Whether a list of entity tags has this one; the strong comparison of RFC 9110 §8.8.3.2.
fn has(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag == etag)
}

/// Whether a list of entity tags has this one; the weak comparison of RFC 9110 §8.8.3.2.
fn names(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// A header that is not understood is ignored, as is one with several ranges (`docs/api.md` §4).
fn parse(range: &str, size: u64) -> Selection {
    let Some((unit, spec)) = range.split_once('=') else { return Selection::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Selection::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Selection::Whole;
    }
    match (number(first), number(last)) {
        (Some(Some(first)), Some(last)) => from_to(first, last, size),
        (Some(None), Some(Some(suffix))) => last_bytes(suffix, size),
        _ => Selection::Whole,
    }
}

/// `None` for what is no number, `Some(None)` for nothing. A number past 2^64 means "past every end".
fn number(text: &str) -> Option<Option<u64>> {
    match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
        _ => None,
    }
}

fn from_to(first: u64, last: Option<u64>, size: u64) -> Selection {
    match last {
        Some(last) if last < first => Selection::Whole,
        _ if first >= size => Selection::Unsatisfiable,
        last => Selection::Part { start: first, end: last.map_or(size, |last| last.saturating_add(1).min(size)) },
    }
}

fn last_bytes(count: u64, size: u64) -> Selection {
    match count == 0 || size == 0 {
        true => Selection::Unsatisfiable,
        false => Selection::Part { start: size.saturating_sub(count), end: size },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    const ETAG: &str = "\"abc\"";

    fn selected(pairs: &[(header::HeaderName, &str)], size: u64) -> Selection {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        select(&Method::GET, &headers, ETAG, size)
    }

    fn range(value: &str, size: u64) -> Selection {
        selected(&[(header::RANGE, value)], size)
    }

    proptest! {
        #[test]
        fn whatever_the_headers_say_a_part_lies_inside_the_body(
            range in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..64),
                "[Bb]ytes *= *[0-9]{0,21} ?-[0-9]{0,21}".prop_map(String::into_bytes),
                (0..100_u64, 0..100_u64).prop_map(|(first, last)| format!("bytes={first}-{last}").into_bytes()),
            ],
            condition in proptest::collection::vec(any::<u8>(), 0..16),
            size in prop_oneof![0..100_u64, any::<u64>()],
        ) {
            let value = |bytes: &[u8]| HeaderValue::from_bytes(bytes).ok();
            let mut headers = HeaderMap::new();
            for name in [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE] {
                if let Some(value) = value(&condition) {
                    select(&Method::GET, &[(name, value)].into_iter().collect(), ETAG, size);
                }
            }
            if let Some(value) = value(&range) {
                headers.insert(header::RANGE, value);
            }
            if let Selection::Part { start, end } = select(&Method::GET, &headers, ETAG, size) {
                prop_assert!(start < end && end <= size, "{start}..{end} of {size}");
            }
        }

        #[test]
        fn a_range_inside_the_body_is_answered_as_asked(size in 1..1_000_u64, a in any::<u64>(), b in any::<u64>()) {
            let (first, last) = ((a % size).min(b % size), (a % size).max(b % size));
            prop_assert_eq!(range(&format!("bytes={first}-{last}"), size), Selection::Part { start: first, end: last + 1 });
        }
    }

    #[test]
    fn every_form_of_a_range() {
        let part = |start, end| Selection::Part { start, end };
        assert_eq!(range("bytes=0-0", 10), part(0, 1));
        assert_eq!(range("bytes=2-5", 10), part(2, 6));
        assert_eq!(range("bytes=2-500", 10), part(2, 10));
        assert_eq!(range("bytes=2-18446744073709551616", 10), part(2, 10));
        assert_eq!(range("Bytes=9-", 10), part(9, 10));
        assert_eq!(range("bytes=-3", 10), part(7, 10));
        assert_eq!(range("bytes=-30", 10), part(0, 10));
        for unsatisfiable in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999-"] {
            assert_eq!(range(unsatisfiable, 10), Selection::Unsatisfiable, "{unsatisfiable}");
        }
        assert_eq!(range("bytes=0-", 0), Selection::Unsatisfiable);
        assert_eq!(range("bytes=-1", 0), Selection::Unsatisfiable);
        for ignored in
            ["bytes=5-2", "bytes=0-1,4-5", "bytes=a-b", "bytes=-", "bytes=", "bytes", "lines=1-2", "bytes=+1-2"]
        {
            assert_eq!(range(ignored, 10), Selection::Whole, "{ignored}");
        }
    }

    #[test]
    fn conditions() {
        let part = Selection::Part { start: 1, end: 10 };
        assert_eq!(selected(&[(header::RANGE, "bytes=1-"), (header::IF_RANGE, ETAG)], 10), part);
        assert_eq!(selected(&[(header::RANGE, "bytes=1-"), (header::IF_RANGE, "\"other\"")], 10), Selection::Whole);
        assert_eq!(selected(&[(header::RANGE, "bytes=1-"), (header::IF_RANGE, "W/\"abc\"")], 10), Selection::Whole);
        assert_eq!(selected(&[(header::IF_NONE_MATCH, "\"x\", W/\"abc\"")], 10), Selection::NotModified);
        assert_eq!(selected(&[(header::IF_NONE_MATCH, "*")], 10), Selection::NotModified);
        assert_eq!(selected(&[(header::IF_NONE_MATCH, "\"x\"")], 10), Selection::Whole);
        let second = [(header::IF_NONE_MATCH, "\"x\""), (header::IF_NONE_MATCH, ETAG)];
        let second: HeaderMap = second.map(|(name, tag)| (name, tag.parse().unwrap())).into_iter().fold(
            HeaderMap::new(),
            |mut headers, (name, tag)| {
                headers.append(name, tag);
                headers
            },
        );
        assert_eq!(select(&Method::GET, &second, ETAG, 10), Selection::NotModified);
        for (tags, expected) in [
            (ETAG, part),
            ("*", part),
            ("\"x\", \"abc\"", part),
            ("\"x\"", Selection::Failed),
            ("W/\"abc\"", Selection::Failed),
            ("ü", Selection::Failed),
        ] {
            assert_eq!(selected(&[(header::RANGE, "bytes=1-"), (header::IF_MATCH, tags)], 10), expected, "{tags}");
        }
        assert_eq!(selected(&[(header::IF_MATCH, "\"x\""), (header::IF_NONE_MATCH, ETAG)], 10), Selection::Failed);
    }

    #[test]
    fn only_one_range_of_a_get_counts() {
        let one: HeaderMap = [(header::RANGE, "bytes=1-".parse().unwrap())].into_iter().collect();
        assert_eq!(select(&Method::HEAD, &one, ETAG, 10), Selection::Whole);
        let mut two = one.clone();
        two.append(header::RANGE, "bytes=2-".parse().unwrap());
        assert_eq!(select(&Method::GET, &two, ETAG, 10), Selection::Whole);
    }
}
