//! Frames of STOMP 1.2, as far as a consumer needs them. Bodies are skipped, because an event only causes a refresh.

use std::fmt::Write;

use thiserror::Error;

/// Maximum size of a frame, in bytes.
pub(super) const MAX_FRAME: usize = 1 << 20;
/// Maximum size of a frame's command and headers, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// A frame from the broker, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) command: String,
    /// In the order of the frame. The first of several headers with the same name applies.
    headers: Vec<(String, String)>,
}

/// The broker does not speak STOMP.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    #[error("a frame is larger than {0} bytes")]
    TooLarge(usize),
    #[error("invalid frame: {0}")]
    Invalid(&'static str),
}

impl Frame {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Splits the bytes of a connection into frames.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
}

impl Decoder {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.start));
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame; `None` if more bytes are needed. Heart-beats are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.start..];
        let beats = rest.iter().position(|byte| !matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        self.start += beats;
        let rest = &rest[beats..];
        match parse(rest)? {
            Some((frame, length)) => {
                self.start += length;
                Ok(Some(frame))
            }
            None if rest.len() > MAX_FRAME => Err(FrameError::TooLarge(MAX_FRAME)),
            None => Ok(None),
        }
    }
}

/// The frame at the beginning of the bytes, and its length.
fn parse(bytes: &[u8]) -> Result<Option<(Frame, usize)>, FrameError> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    loop {
        let read = bytes.len() - rest.len();
        let Some(end) = rest.iter().take(MAX_HEAD.saturating_sub(read)).position(|byte| *byte == b'\n') else {
            return if bytes.len() >= MAX_HEAD { Err(FrameError::TooLarge(MAX_HEAD)) } else { Ok(None) };
        };
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        lines.push(std::str::from_utf8(line).map_err(|_| FrameError::Invalid("the headers are not UTF-8"))?);
    }
    let Some((command, headers)) = lines.split_first() else {
        return Err(FrameError::Invalid("it has no command"));
    };
    // For compatibility with STOMP 1.0, this frame has no escapes.
    let is_escaped = *command != "CONNECTED";
    let header = |line: &&str| {
        let (name, value) = line.split_once(':').ok_or(FrameError::Invalid("a header has no colon"))?;
        if is_escaped { Ok((unescaped(name)?, unescaped(value)?)) } else { Ok((name.to_owned(), value.to_owned())) }
    };
    let headers = headers.iter().map(header).collect::<Result<Vec<_>, FrameError>>()?;
    let frame = Frame { command: (*command).to_owned(), headers };
    let head = bytes.len() - rest.len();
    let body = match frame.header("content-length") {
        Some(length) => {
            let length: usize = length.parse().map_err(|_| FrameError::Invalid("content-length is not a number"))?;
            if length > MAX_FRAME {
                return Err(FrameError::TooLarge(MAX_FRAME));
            }
            match rest.get(length) {
                Some(0) => length,
                Some(_) => return Err(FrameError::Invalid("no NUL after the body")),
                None => return Ok(None),
            }
        }
        None => match rest.iter().position(|byte| *byte == 0) {
            Some(length) => length,
            None => return Ok(None),
        },
    };
    let length = head + body + 1;
    if length > MAX_FRAME { Err(FrameError::TooLarge(MAX_FRAME)) } else { Ok(Some((frame, length))) }
}

/// Encodes a frame without a body.
pub(super) fn encode(command: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{command}\n");
    for (name, value) in headers {
        // For compatibility with STOMP 1.0, this frame has no escapes.
        let value = if command == "CONNECT" { (*value).to_owned() } else { escaped(value) };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}:{value}");
    }
    text + "\n\0"
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\r', "\\r").replace('\n', "\\n").replace(':', "\\c")
}

fn unescaped(text: &str) -> Result<String, FrameError> {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('r') => '\r',
                Some('n') => '\n',
                Some('c') => ':',
                Some('\\') => '\\',
                _ => return Err(FrameError::Invalid("an unknown escape")),
            },
            letter => letter,
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests;
