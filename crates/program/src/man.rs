//! Manual pages, generated from a program's command line and settings.

use std::path::Path;
use std::{fs, io};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Generates a page for the program and one for each command, as pairs of file name and content. `variables` are the
/// environment variables that the program reads, each with its meaning as Markdown; `files` are paths with their purpose.
pub fn pages(
    cli: Command,
    version: &str,
    variables: impl IntoIterator<Item = (String, String)>,
    files: &[(&str, &str)],
) -> Vec<(String, String)> {
    let mut cli = cli.disable_help_subcommand(true);
    cli.build();
    let program = name(&cli);
    let source = format!("{program} {version}");
    let commands: Vec<_> = cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let mut extra = Roff::new();
    write_after_help(&cli, &mut extra);
    write_files(files, &mut extra);
    write_variables(variables, &mut extra);
    write_see_also(&mut extra, commands.iter().map(name));
    let mut pages = vec![(format!("{program}.1"), render(cli, source.clone(), &extra))];
    for command in commands {
        let mut extra = Roff::new();
        write_after_help(&command, &mut extra);
        write_see_also(&mut extra, [program.clone()]);
        pages.push((format!("{}.1", name(&command)), render(command, source.clone(), &extra)));
    }
    pages
}

/// Writes the pages into a folder, which is created if it does not exist.
pub fn write(folder: &Path, pages: &[(String, String)]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    pages.iter().try_for_each(|(name, page)| fs::write(folder.join(name), page))
}

fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// Renders clap's sections, then `extra`.
fn render(command: Command, source: String, extra: &Roff) -> String {
    let title = name(&command).to_uppercase();
    let has_commands = command.has_subcommands();
    let man = Man::new(command).title(title).source(source).manual("User Commands");
    let mut out = Vec::new();
    let sections = [Man::render_title, Man::render_name_section, Man::render_synopsis_section]
        .into_iter()
        .chain([Man::render_description_section, Man::render_options_section])
        .chain(has_commands.then_some(Man::render_subcommands_section as fn(&Man, &mut dyn std::io::Write) -> _));
    for section in sections {
        // Writing to memory cannot fail.
        let _ = section(&man, &mut out);
    }
    let _ = extra.to_writer(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes the text below a command's help, such as examples and exit codes.
fn write_after_help(command: &Command, out: &mut Roff) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (mut notes, mut codes) = (Vec::new(), None);
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
            out.control("SH", ["EXAMPLES"]);
            write_verbatim(examples, out);
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
        out.control("PP", []).text(inlines(note));
    }
    if let Some(codes) = codes {
        out.control("SH", ["EXIT STATUS"]).text([roman(codes)]);
    }
}

fn write_verbatim(lines: &str, out: &mut Roff) {
    out.control("nf", []);
    for line in lines.lines() {
        out.text([roman(line)]);
    }
    out.control("fi", []);
}

fn write_files(files: &[(&str, &str)], out: &mut Roff) {
    out.control("SH", ["FILES"]);
    for (path, text) in files {
        out.control("TP", []).text([bold(*path)]).text([roman(*text)]);
    }
}

fn write_variables(variables: impl IntoIterator<Item = (String, String)>, out: &mut Roff) {
    out.control("SH", ["ENVIRONMENT"]);
    for (names, meaning) in variables {
        out.control("TP", []).text([bold(names)]).text(inlines(&meaning));
    }
}

/// Converts Markdown to roff: code becomes bold, other emphasis is dropped.
fn inlines(markdown: &str) -> Vec<Inline> {
    let text = markdown.replace("**", "");
    let pieces = text.split('`').enumerate();
    pieces.map(|(at, piece)| if at % 2 == 1 { bold(piece) } else { roman(piece) }).collect()
}

fn write_see_also(out: &mut Roff, names: impl IntoIterator<Item = String>) {
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
