//! Formats the fields of log lines without colours.
//!
//! The output is that of the library, whose formatter spends most of its time on styles and escapes that are not needed here.

use std::error::Error;
use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// Formats most fields itself; messages and errors are left to the library.
pub(super) struct PlainFields;

impl<'a> FormatFields<'a> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut visitor = PlainVisitor { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct PlainVisitor<'a> {
    writer: Writer<'a>,
    /// Whether no field was written yet.
    is_empty: bool,
    result: fmt::Result,
}

impl PlainVisitor<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.result.is_ok() {
            let space = if self.is_empty { "" } else { " " };
            self.is_empty = false;
            self.result =
                write_all(&mut self.writer, [space, field.name(), "="]).and_then(|()| value(&mut self.writer));
        }
    }

    fn delegate(&mut self, field: &Field, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        if self.result.is_ok() {
            let mut visitor = DefaultVisitor::new(self.writer.by_ref(), self.is_empty);
            record(&mut visitor);
            self.result = visitor.finish();
            // The library does not show these.
            self.is_empty &= field.name().starts_with("log.");
        }
    }
}

impl Visit for PlainVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if is_special(field) {
            self.delegate(field, |visitor| visitor.record_str(field, value));
        } else if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
            self.write(field, |writer| write_all(writer, ["\"", value, "\""]));
        } else {
            self.write(field, |writer| write!(writer, "{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.delegate(field, |visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if is_special(field) {
            self.delegate(field, |visitor| visitor.record_debug(field, value));
        } else {
            self.write(field, |writer| write!(writer, "{value:?}"));
        }
    }
}

fn write_all(writer: &mut Writer<'_>, texts: [&str; 3]) -> fmt::Result {
    texts.into_iter().try_for_each(|text| writer.write_str(text))
}

/// Whether the library treats this field in a special way.
fn is_special(field: &Field) -> bool {
    field.name() == "message" || field.name().starts_with("log.") || field.name().starts_with("r#")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use program::lock;
    use tracing::{info, info_span, subscriber};
    use tracing_subscriber::fmt::format::DefaultFields;
    use tracing_subscriber::fmt::{MakeWriter, layer};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Buffer {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What `log` writes with these fields.
    fn text(fields: impl for<'a> FormatFields<'a> + Send + Sync + 'static, log: fn()) -> String {
        let buffer = Buffer::default();
        let lines = layer().with_ansi(false).without_time().fmt_fields(fields).with_writer(buffer.clone());
        subscriber::with_default(tracing_subscriber::registry().with(lines), log);
        String::from_utf8(std::mem::take(&mut *lock(&buffer.0))).unwrap()
    }

    #[test]
    fn lines_are_those_of_the_library() {
        let log = || {
            let span = info_span!("request", request_id = "a b", trace_id = tracing::field::Empty, number = 1);
            let _entered = span.enter();
            span.record("trace_id", tracing::field::display("a\u{1b}[31m"));
            let cause = io::Error::other(io::Error::other("cause \u{7}"));
            let failure = &cause as &(dyn Error + 'static);
            for text in ["", "plain", "a \"quoted\" \\ path", "line\nbreak \u{1b}[31m \u{9b} \u{fc}\u{301} \u{7f}"] {
                let (none, some) = (None::<u64>, Some(0.1));
                info!(target: "access", text, none, some, size = 5_u64, r#type = text, "answered");
                info!(display = %text, debug = ?text, flag = true, failure, "message with {text}");
                info!(message = text, "log.file" = text, first = -1);
            }
            info!(only = 1);
            info!("only a message");
        };
        let expected = text(DefaultFields::new(), log);
        assert!(expected.lines().count() > 10, "{expected}");
        assert_eq!(text(PlainFields, log), expected);
    }
}
