//! Reads `.env` like python-dotenv 1.2, because deployments reuse their files. Written from its observable behaviour; the
//! tables in the tests were compared with it.
//!
//! Only `${NAME}` and `${NAME:-default}` are expanded, in every kind of quotes; `$NAME` is not.

use std::collections::BTreeMap;

/// A variable in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// `None`: a name without `=`, which sets nothing.
    pub(crate) value: Option<String>,
    /// Line of the name, from 1.
    pub(crate) line: usize,
}

/// Parses a file. References look up variables defined above in the file, then `outer`, the variables of the process.
/// Also returns the numbers of lines that do not parse, which are skipped.
pub(crate) fn parse<'a>(text: &str, outer: impl Fn(&str) -> Option<&'a str>) -> (Vec<Entry>, Vec<usize>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    let mut reader = Reader { rest: &text, line: 1 };
    let (mut entries, mut bad) = (Vec::new(), Vec::new());
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    loop {
        reader.skip(is_space);
        if reader.rest.is_empty() {
            return (entries, bad);
        }
        let line = reader.line;
        match reader.binding() {
            Ok(Some((name, value))) => {
                let lookup = |name: &str| seen.get(name).map(String::as_str).or_else(|| outer(name));
                let Ok(value) = value.map(|value| expand(&value, lookup)).transpose() else {
                    bad.push(line);
                    continue;
                };
                // A name without a value hides an outer variable: references to it expand to nothing.
                seen.insert(name.clone(), value.clone().unwrap_or_default());
                entries.push(Entry { name, value, line });
            }
            Ok(None) => {}
            Err(Malformed) => {
                reader.skip(|c| c != '\n');
                bad.push(line);
            }
        }
    }
}

struct Malformed;

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn skip(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !is(c)).unwrap_or(self.rest.len()))
    }

    /// Reads one statement up to the end of its line; `None` for a comment.
    fn binding(&mut self) -> Result<Option<(String, Option<String>)>, Malformed> {
        if self.rest.strip_prefix("export").is_some_and(|rest| rest.starts_with(is_blank)) {
            self.take("export".len());
            self.skip(is_blank);
        }
        let name = if self.rest.starts_with('#') { None } else { Some(self.name()?) };
        self.skip(is_blank);
        let value = if self.rest.starts_with('=') {
            self.take(1);
            let gap = !self.skip(is_blank).is_empty();
            Some(if gap && self.rest.starts_with('#') { String::new() } else { self.value()? })
        } else {
            None
        };
        self.skip(is_blank);
        if self.rest.starts_with('#') {
            self.skip(|c| c != '\n');
        }
        if self.rest.is_empty() || self.rest.starts_with('\n') {
            Ok(name.map(|name| (name.to_owned(), value)))
        } else {
            Err(Malformed)
        }
    }

    fn name(&mut self) -> Result<&'a str, Malformed> {
        let name = if self.rest.starts_with('\'') {
            let end = self.rest[1..].find('\'').ok_or(Malformed)?;
            &self.take(end + 2)[1..=end]
        } else {
            self.skip(|c| c != '=' && c != '#' && !is_space(c))
        };
        if name.is_empty() { Err(Malformed) } else { Ok(name) }
    }

    fn value(&mut self) -> Result<String, Malformed> {
        match self.rest.chars().next() {
            Some('\'') => self.quoted('\''),
            Some('"') => self.quoted('"'),
            _ => {
                let line = self.skip(|c| c != '\n');
                Ok(line[..comment_start(line)].trim_end_matches(is_space).to_owned())
            }
        }
    }

    /// Reads a quoted value, which may span lines.
    fn quoted(&mut self, quote: char) -> Result<String, Malformed> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.take(at + 1);
                return Ok(value);
            }
            if c != '\\' {
                value.push(c);
                continue;
            }
            let (_, escaped) = chars.next().ok_or(Malformed)?;
            match unescape(escaped, quote) {
                Some(c) => value.push(c),
                None => value.extend(['\\', escaped]),
            }
        }
        Err(Malformed)
    }
}

fn unescape(escaped: char, quote: char) -> Option<char> {
    Some(match escaped {
        '\\' | '\'' => escaped,
        _ if quote == '\'' => return None,
        '"' => '"',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        _ => return None,
    })
}

/// Start of a comment: at white space before a `#`; the end of the line if there is none.
fn comment_start(line: &str) -> usize {
    let mut blanks = None;
    for (at, c) in line.char_indices() {
        if is_space(c) {
            blanks = blanks.or(Some(at));
        } else if let (Some(start), '#') = (blanks, c) {
            return start;
        } else {
            blanks = None;
        }
    }
    line.len()
}

/// Maximum length of expanded text, in bytes. Without a limit, each line could double the previous one.
const LONGEST: usize = 64 * 1024;

fn expand<'a>(value: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> Result<String, Malformed> {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        if let Some((name, default, after)) = reference(&rest[at + 2..]) {
            out.push_str(lookup(name).unwrap_or(default));
            if out.len() > LONGEST {
                return Err(Malformed);
            }
            rest = after;
        } else {
            out.push_str("${");
            rest = &rest[at + 2..];
        }
    }
    Ok(out + rest)
}

/// Splits a reference after `${` into its name, its default and the text after the brace.
fn reference(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.find(['}', ':'])?;
    let (name, tail) = text.split_at(end);
    if let Some(after) = tail.strip_prefix('}') {
        return Some((name, "", after));
    }
    let (default, after) = tail.strip_prefix(":-")?.split_once('}')?;
    Some((name, default, after))
}

/// White space as in Python's regular expressions.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn is_blank(c: char) -> bool {
    is_space(c) && c != '\n'
}

#[cfg(test)]
mod tests;
