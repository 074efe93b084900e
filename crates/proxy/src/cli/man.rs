//! `man`: manual pages, made from the definitions of the command line and of the settings.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::{Cli, Failure};
use crate::api::VERSION;
use crate::settings;

const PROGRAM: &str = "hpc-storage-proxy";

/// Writes a page for the program and one for each of its commands.
pub(super) fn run(folder: &Path) -> Result<(), Failure> {
    let written = fs::create_dir_all(folder)
        .and_then(|()| pages().iter().try_for_each(|(name, page)| fs::write(folder.join(name), page)));
    written.map_err(|error| format!("the manual pages cannot be written to {}: {error}", folder.display()))
}

/// Names of files, and what belongs into them.
pub(super) fn pages() -> Vec<(String, String)> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let commands: Vec<_> = cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    std::iter::once((format!("{PROGRAM}.1"), main_page(cli)))
        .chain(commands.into_iter().map(|command| (format!("{}.1", name(&command)), page_of_command(command))))
        .collect()
}

fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn main_page(cli: Command) -> String {
    let commands: Vec<_> = cli.get_subcommands().map(name).collect();
    let mut own = Roff::new();
    after_help(&cli, &mut own);
    files(&mut own);
    environment(&mut own);
    see_also(&mut own, commands.iter().map(String::as_str));
    rendered(cli, &own)
}

fn page_of_command(command: Command) -> String {
    let mut own = Roff::new();
    after_help(&command, &mut own);
    see_also(&mut own, [PROGRAM]);
    rendered(command, &own)
}

/// What clap knows, followed by sections of our own.
fn rendered(command: Command, own: &Roff) -> String {
    let title = name(&command).to_uppercase();
    let has_commands = command.has_subcommands();
    let man = Man::new(command).title(title).source(format!("{PROGRAM} {VERSION}")).manual("User Commands");
    let mut out = Vec::new();
    let sections = [Man::render_title, Man::render_name_section, Man::render_synopsis_section]
        .into_iter()
        .chain([Man::render_description_section, Man::render_options_section])
        .chain(has_commands.then_some(Man::render_subcommands_section as fn(&Man, &mut dyn std::io::Write) -> _));
    for section in sections {
        // Writing to memory cannot fail.
        let _ = section(&man, &mut out);
    }
    let _ = own.to_writer(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The text below a command's help: examples, exit codes, and the rest.
fn after_help(command: &Command, out: &mut Roff) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (mut notes, mut codes) = (Vec::new(), None);
    for paragraph in text.split("\n\n") {
        if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
            out.control("SH", ["EXAMPLES"]);
            verbatim(examples, out);
        } else if let Some(text) = paragraph.strip_prefix("Exit codes: ") {
            codes = Some(text);
        } else {
            notes.push(paragraph);
        }
    }
    if !notes.is_empty() {
        out.control("SH", ["NOTES"]);
    }
    for note in notes {
        out.control("PP", []).text(plain(note));
    }
    if let Some(codes) = codes {
        out.control("SH", ["EXIT STATUS"]).text([roman(codes)]);
    }
}

fn verbatim(lines: &str, out: &mut Roff) {
    out.control("nf", []);
    for line in lines.lines() {
        out.text([roman(line)]);
    }
    out.control("fi", []);
}

fn files(out: &mut Roff) {
    out.control("SH", ["FILES"]);
    let files = [
        (
            "/etc/hpc-storage-proxy/settings.yaml",
            "The settings that the packaged service reads, because its unit says --config. The program alone reads no \
             file that is not named.",
        ),
        ("/etc/default/hpc-storage-proxy", "Variables for the packaged service; it need not be there."),
        (".env", "Variables, read from the working directory."),
    ];
    for (path, text) in files {
        out.control("TP", []).text([bold(path)]).text([roman(text)]);
    }
}

/// Every variable, from the table of the settings.
fn environment(out: &mut Roff) {
    out.control("SH", ["ENVIRONMENT"]);
    for (variables, key, meaning) in settings::variables() {
        out.control("TP", [])
            .text([bold(variables.join(", "))])
            .text([roman(format!("({key}) "))])
            .text(plain(meaning));
    }
}

/// Markdown of the table: what stands between backticks is bold, other emphasis is dropped.
fn plain(markdown: &str) -> Vec<Inline> {
    let text = markdown.replace("**", "");
    let pieces = text.split('`').enumerate();
    pieces.map(|(at, piece)| if at % 2 == 1 { bold(piece) } else { roman(piece) }).collect()
}

fn see_also<'a>(out: &mut Roff, names: impl IntoIterator<Item = &'a str>) {
    out.control("SH", ["SEE ALSO"]);
    let mut inlines = Vec::new();
    for name in names {
        if !inlines.is_empty() {
            inlines.push(roman(", "));
        }
        inlines.extend([bold(name), roman("(1)")]);
    }
    out.text(inlines);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(of: &str) -> String {
        let found = pages().into_iter().find(|(name, _)| name == of);
        found.unwrap_or_else(|| panic!("no page {of}")).1
    }

    #[test]
    fn every_command_has_a_page_which_the_main_page_names() {
        let main = page("hpc-storage-proxy.1");
        let cli = Cli::command();
        assert_eq!(pages().len(), 1 + cli.get_subcommands().count());
        for command in cli.get_subcommands() {
            let name = format!("hpc-storage-proxy-{}", command.get_name());
            let own = page(&format!("{name}.1"));
            assert!(own.contains(".SH EXAMPLES") && own.contains(r"\fBhpc\-storage\-proxy\fR(1)"), "{own}");
            assert!(main.contains(&format!(r"\fB{}\fR(1)", name.replace('-', r"\-"))), "{name}");
        }
    }

    #[test]
    fn the_main_page_tells_exit_codes_files_and_every_variable() {
        let main = page("hpc-storage-proxy.1");
        for wanted in [".SH FILES", ".SH \"EXIT STATUS\"", "78 settings that cannot be used", "settings.yaml"] {
            assert!(main.contains(wanted), "{wanted}: {main}");
        }
        for (variables, _, _) in settings::variables() {
            let name = variables[0].replace('-', r"\-");
            assert!(main.contains(&format!(r"\fB{name}")), "{name}");
        }
    }

    #[test]
    fn marks_of_markdown_do_not_show() {
        for (name, page) in pages() {
            assert!(!page.contains("**") && !page.contains('`'), "{name}: {page}");
        }
    }
}
