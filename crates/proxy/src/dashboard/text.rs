//! Texts, times, numbers and bars. Text from outside is hostile: [`isolated`] shows it without letting it affect its surroundings.

use std::borrow::Cow;
use std::fmt::Write;

use maud::{Markup, html};
use provisioner_report::{Amount, Terabyte};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::story::ratio;

/// Text from outside: escaped, isolated from the direction of the surrounding text, with visible control characters.
pub(super) fn isolated(text: &str) -> Markup {
    html! { bdi { (visible(text)) } }
}

/// Prose from outside, in which parts between backticks are code.
pub(super) fn prose(text: &str) -> Markup {
    let is_blank = text.trim().is_empty();
    let mut parts: Vec<_> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        parts = vec![text];
    }
    html! {
        bdi {
            @for (position, text) in parts.into_iter().enumerate() {
                @if position % 2 == 1 { code { (part(text, is_blank)) } } @else { (part(text, is_blank)) }
            }
        }
    }
}

/// A path, which can be broken after each slash.
pub(super) fn path(path: &str) -> Markup {
    html! {
        bdi {
            @for part in path.split_inclusive('/') {
                (visible(part)) @if part.len() > 1 && part.ends_with('/') { wbr; }
            }
        }
    }
}

/// The same, or a dash if it is empty.
pub(super) fn or_dash(text: &str) -> Markup {
    if text.is_empty() { dash() } else { isolated(text) }
}

pub(super) fn dash() -> Markup {
    html! { span.muted { "–" } }
}

/// Maximum number of marks on one letter: more of them would cover other lines.
const MAX_MARKS: usize = 4;

/// Replaces characters that are invisible, change the order of others, or cover them. A text of white space only is invisible.
pub(super) fn visible(text: &str) -> Cow<'_, str> {
    part(text, text.trim().is_empty())
}

/// A part of a text, which is all white space or not.
fn part(text: &str, is_blank: bool) -> Cow<'_, str> {
    if !is_blank && !text.contains(|letter| is_invisible(letter) || is_mark(letter)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    let mut marks = 0;
    for letter in text.chars() {
        marks = if is_mark(letter) { marks + 1 } else { 0 };
        match letter {
            '\0'..='\u{1f}' => shown.extend(char::from_u32(u32::from(letter) + 0x2400)),
            '\u{7f}' => shown.push('␡'),
            _ if is_blank || marks > MAX_MARKS || is_invisible(letter) => {
                // Writing into a text cannot fail.
                let _ = write!(shown, "[U+{:04X}]", u32::from(letter));
            }
            _ => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// Marks of any letter, which stack.
fn is_mark(letter: char) -> bool {
    matches!(
        letter,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
            | '\u{fe20}'..='\u{fe2f}'
    )
}

/// A time relative to now, with the absolute one beside it.
pub(super) fn when(at: OffsetDateTime, now: OffsetDateTime) -> Markup {
    beside(&relative(at, now), "", at)
}

/// How long something has lasted, with its beginning beside it. `preposition` is "for", or "For" at the beginning of a sentence.
pub(super) fn lasting(preposition: &str, since: OffsetDateTime, now: OffsetDateTime) -> Markup {
    beside(&format!("{preposition} {}", span(now - since)), "since ", since)
}

fn beside(relative: &str, before: &str, at: OffsetDateTime) -> Markup {
    html! {
        span.when {
            span.relative { (relative) }
            " "
            time.absolute datetime=(rfc3339(at)) { (before) (absolute(at)) }
        }
    }
}

pub(super) fn when_or_dash(at: Option<OffsetDateTime>, now: OffsetDateTime) -> Markup {
    at.map_or_else(dash, |at| when(at, now))
}

pub(super) fn rfc3339(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

fn absolute(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    format!("{} {:02}:{:02} UTC", at.date(), at.hour(), at.minute())
}

fn relative(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let ago = now - at;
    if ago.abs() < Duration::SECOND {
        "now".to_owned()
    } else if ago.is_negative() {
        format!("in {}", span(-ago))
    } else {
        format!("{} ago", span(ago))
    }
}

/// A duration in its largest unit.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.whole_seconds().unsigned_abs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A count with separators between thousands.
pub(super) fn count(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            // A narrow space that does not break.
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of things, with its noun.
pub(super) fn plural(number: usize, one: &str, many: &str) -> String {
    let noun = if number == 1 { one } else { many };
    format!("{} {noun}", count(number as u64))
}

/// Bytes in the largest unit that leaves at least one, with three digits.
pub(super) fn bytes(bytes: u64, terabyte: Terabyte) -> String {
    let (base, units) = match terabyte {
        Terabyte::Decimal => (1000_u64, ["B", "kB", "MB", "GB", "TB", "PB", "EB"]),
        Terabyte::Binary => (1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]),
    };
    let mut power = 0_usize;
    let mut unit = 1_u64;
    while power < 6 && bytes / unit >= base {
        unit *= base;
        power += 1;
    }
    if power == 0 {
        return format!("{bytes} B");
    }
    let number = ratio(bytes, unit);
    let digits = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{} {}", trimmed(&format!("{number:.digits$}")), units[power])
}

/// A number of the document, with separators between thousands and without trailing zeros.
pub(super) fn number(number: f64) -> String {
    let short = format!("{number:.3}");
    match trimmed(&short) {
        // A number that rounds to 0 is not 0.
        "0" if number != 0.0 => format!("{number}"),
        short => {
            let whole = short.split('.').next().unwrap_or_default();
            grouped(whole) + &short[whole.len()..]
        }
    }
}

fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

pub(super) fn unit(terabyte: Terabyte) -> &'static str {
    match terabyte {
        Terabyte::Decimal => "TB",
        Terabyte::Binary => "TiB",
    }
}

/// Parts from this on are shown as full.
pub(super) const FULL: f64 = 0.9;

/// A part of a whole as a bar with its percentage. Pictures are for the eye: the text says the same.
pub(super) fn bar(part: f64) -> Markup {
    let class = if part >= 1.0 {
        "bar over"
    } else if part >= FULL {
        "bar full"
    } else {
        "bar"
    };
    let width = format!("{:.1}", part.clamp(0.0, 1.0) * 100.0);
    html! {
        svg class=(class) viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
            rect.track width="100" height="6" {}
            rect.fill width=(width) height="6" {}
        }
    }
}

pub(super) fn percent(part: f64) -> String {
    if part > 0.0 && part < 0.01 { "< 1 %".to_owned() } else { format!("{:.0} %", part * 100.0) }
}

/// Use of a quota: a bar, and the numbers.
pub(super) fn used(usage: u64, limit: u64, format: impl Fn(u64) -> String) -> Markup {
    let part = if limit == 0 { 0.0 } else { ratio(usage, limit) };
    html! {
        span.used {
            (bar(part))
            span { (format(usage)) " of " (format(limit)) " (" (percent(part)) ")" }
        }
    }
}

/// Space of a resource in a table.
pub(super) fn space(usage: Option<Amount>, quota: Option<Amount>, terabyte: Terabyte) -> Markup {
    let format = |amount| bytes(amount, terabyte);
    match (usage, quota) {
        (Some(usage), Some(quota)) if quota.bytes > 0 => used(usage.bytes, quota.bytes, format),
        (Some(usage), _) => html! { (format(usage.bytes)) },
        (None, Some(quota)) => html! { span.muted { "of " (format(quota.bytes)) } },
        (None, None) => dash(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped_isolated_and_visible() {
        for (text, shown) in [
            ("plain", "<bdi>plain</bdi>"),
            ("<b>&\"", "<bdi>&lt;b&gt;&amp;&quot;</bdi>"),
            ("a\nb\tc\0", "<bdi>a␊b␉c␀</bdi>"),
            ("\u{202e}gpj.exe", "<bdi>[U+202E]gpj.exe</bdi>"),
            ("a\u{200b}b\u{2069}c\u{85}\u{7f}", "<bdi>a[U+200B]b[U+2069]c[U+0085]␡</bdi>"),
            ("Zürich 東京 שלום", "<bdi>Zürich 東京 שלום</bdi>"),
            ("u\u{308}o\u{301}", "<bdi>u\u{308}o\u{301}</bdi>"),
            ("Z\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}", "<bdi>Z\u{301}\u{301}\u{301}\u{301}[U+0301][U+0301]</bdi>"),
            (" \u{3000}", "<bdi>[U+0020][U+3000]</bdi>"),
            ("", "<bdi></bdi>"),
        ] {
            assert_eq!(isolated(text).into_string(), shown, "{text:?}");
        }
    }

    #[test]
    fn prose_and_paths_are_marked_up() {
        assert_eq!(
            prose("run `adopt <x>`, then wait").into_string(),
            "<bdi>run <code>adopt &lt;x&gt;</code>, then wait</bdi>"
        );
        assert_eq!(prose("`a` `b`").into_string(), "<bdi><code>a</code> <code>b</code></bdi>");
        assert_eq!(prose("a ` alone").into_string(), "<bdi>a ` alone</bdi>");
        assert_eq!(path("/a/b<c").into_string(), "<bdi>/a/<wbr>b&lt;c</bdi>");
    }

    #[test]
    fn times_are_shown_relative_and_absolute() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        for (seconds, shown) in [
            (0, "now"),
            (45, "45 s ago"),
            (600, "10 min ago"),
            (-600, "in 10 min"),
            (10_800, "3 h ago"),
            (5 * 86_400, "5 days ago"),
        ] {
            assert_eq!(relative(now - Duration::seconds(seconds), now), shown);
        }
        let shown = when(now, now).into_string();
        assert!(shown.contains("datetime=\"2027-01-15T08:00:00Z\""), "{shown}");
        assert!(shown.contains(">2027-01-15 08:00 UTC<"), "{shown}");
        let shown = lasting("For", now - Duration::hours(3), now).into_string();
        assert!(shown.contains(">For 3 h<") && shown.contains(">since 2027-01-15 05:00 UTC<"), "{shown}");
    }

    #[test]
    fn amounts_have_three_digits_and_the_unit_of_their_system() {
        let shown = |number| (bytes(number, Terabyte::Decimal), bytes(number, Terabyte::Binary));
        for (number, decimal, binary) in [
            (0, "0 B", "0 B"),
            (999, "999 B", "999 B"),
            (1_500, "1.5 kB", "1.46 KiB"),
            (10_000_000_000_000, "10 TB", "9.09 TiB"),
            (1 << 40, "1.1 TB", "1 TiB"),
            (u64::MAX, "18.4 EB", "16 EiB"),
        ] {
            assert_eq!(shown(number), (decimal.to_owned(), binary.to_owned()), "{number}");
        }
        assert_eq!([1_234_567, 999, 0].map(count), ["1\u{202f}234\u{202f}567", "999", "0"]);
        assert_eq!([10.0, 0.5, 1e-7, 0.0].map(number), ["10", "0.5", "0.0000001", "0"]);
        assert_eq!([1_234.5, 292_600_000.0].map(number), ["1\u{202f}234.5", "292\u{202f}600\u{202f}000"]);
        assert_eq!([0.0, 0.001, 0.5, 1.2].map(percent), ["0 %", "< 1 %", "50 %", "120 %"]);
    }
}
