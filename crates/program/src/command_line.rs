//! Reference documentation of a program's command line, and shell completions.

use clap::Command;
use clap_complete::Shell;

/// The help of the program and of each of its commands as Markdown, after `head`.
pub fn reference(cli: Command, head: &str) -> String {
    let mut cli = cli.term_width(100);
    cli.build();
    let program = cli.get_name().to_owned();
    let section = |title: &str, command: &mut Command| {
        let help = command.render_long_help().to_string();
        let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
        format!("\n## `{title}`\n\n```text\n{}\n```\n", lines.join("\n"))
    };
    let mut out = head.to_owned() + &section(&program, &mut cli);
    for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        out += &section(&format!("{program} {}", command.get_name()), command);
    }
    out
}

/// A script that completes the program's commands and options.
pub fn completions(mut cli: Command, shell: Shell) -> String {
    let program = cli.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli, &program, &mut script);
    // clap_complete (at least 4.6.1 to 4.6.11) escapes hyphens in the program's name in two different ways for bash, so the
    // options of subcommands are not completed.
    let (wrong, right) = (program.replace('-', "__subcmd__"), program.replace('-', "__"));
    String::from_utf8_lossy(&script).replace(&wrong, &right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bash_completes_the_subcommands_of_a_program_with_hyphens() {
        let script = completions(Command::new("a-b-c").subcommand(Command::new("run")), Shell::Bash);
        assert!(script.contains("a__b__c__subcmd__run") && !script.contains("a__subcmd__b"), "{script}");
    }
}
