use super::*;

const SOON: Duration = Duration::from_secs(20);

fn output(program: &str, arguments: &[&str], time: Duration) -> Result<String, CommandError> {
    run(&Program::find(program)?, arguments, time)
}

/// Runs a shell as an example of a misbehaving program. Only tests use one.
fn shell(script: &str, time: Duration) -> Result<String, CommandError> {
    output("sh", &["-c", script], time)
}

#[test]
fn arguments_are_passed_unchanged_and_the_environment_is_empty() {
    assert_eq!(output("printf", &["%s|", "$(id)", "a b", "'", ""], SOON).unwrap(), "$(id)|a b|'||");
    assert_eq!(output("env", &[], SOON).unwrap(), "LC_ALL=C\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
    assert_eq!(output("cat", &[], SOON).unwrap(), "");
    assert_eq!(output("pwd", &[], SOON).unwrap(), "/\n");
}

/// Runs a shell with this input; it is killed after a second if `goes_on` is false.
fn shell_with(script: &str, input: &[u8], goes_on: bool) -> Result<Finished, CommandError> {
    let program = Program::find("sh").unwrap();
    let environment = [("LC_ALL".to_owned(), "de".to_owned()), ("POOL".to_owned(), "a b".to_owned())];
    let arguments = ["-c", script];
    let (environment, proceed) = (&environment[..], &|| goes_on);
    execute(&Execution { program: &program, arguments: &arguments, environment, input, timeout: SOON, proceed })
}

#[test]
fn input_is_passed_while_output_is_read() {
    let input = vec![b'x'; 3_000_000];
    let finished = shell_with("cat; echo $POOL $LC_ALL >&2; exit 7", &input, true).unwrap();
    assert!(finished.output == input && finished.stderr == b"a b de\n");
    assert_eq!(cause(finished.status), "exit code 7");
    // It exits, or closes its input, before it has read everything.
    for script in ["true", "exec <&-; sleep 0.1"] {
        assert!(shell_with(script, &input, true).unwrap().status.success());
    }
}

#[test]
fn a_command_that_must_not_go_on_is_killed() {
    let begun = Instant::now();
    assert!(matches!(shell_with("sleep 300", b"", false), Err(CommandError::Stopped { .. })));
    assert!(begun.elapsed() < SOON);
}

#[test]
fn programs_are_absolute_or_in_known_folders() {
    assert!(Program::find("true").unwrap().0.is_absolute());
    for name in ["", "./true", "../bin/true", "bin/true", "no-such-program", "/etc/passwd", "/usr/bin", "/nonexistent"]
    {
        assert!(matches!(Program::find(name), Err(CommandError::NoProgram(_))), "{name}");
    }
}

#[test]
fn a_failure_shows_program_exit_code_and_first_line() {
    let failed = shell("echo; echo one >&2; echo two >&2; exit 5", SOON).unwrap_err();
    assert!(failed.to_string().ends_with("/sh failed with exit code 5: one"), "{failed}");
    assert!(shell("kill -9 $$", SOON).unwrap_err().to_string().ends_with("signal 9: no error message"));
    assert!(matches!(shell("printf '\\377'", SOON), Err(CommandError::NotUtf8 { .. })));
}

#[test]
fn both_outputs_are_read_at_the_same_time() {
    let script = "head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero | tr '\\0' x";
    assert_eq!(shell(script, SOON).unwrap().len(), 300_000);
}

#[test]
fn a_slow_command_is_killed_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let script = format!("sleep 300 & echo $! > {}; wait", path.display());
    assert!(matches!(shell(&script, Duration::from_millis(500)), Err(CommandError::TimedOut { .. })));
    is_gone(&std::fs::read_to_string(path).unwrap());
}

#[test]
fn remaining_children_are_killed_at_the_end() {
    let begun = Instant::now();
    let pid = shell("sleep 300 & echo $!", SOON).unwrap();
    assert!(begun.elapsed() < SOON);
    is_gone(&pid);
}

#[test]
fn a_child_that_has_left_the_group_does_not_delay_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let shown = path.display();
    let script = format!(
        "setsid sh -c 'echo $$ > {shown}; exec sleep 300' & until [ -s {shown} ]; do sleep 0.01; done; echo done; exit 7"
    );
    let begun = Instant::now();
    let finished = shell_with(&script, b"", true);
    let pid = std::fs::read_to_string(path).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    let finished = finished.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((&finished.output[..], finished.status.code()), (&b"done\n"[..], Some(7)));
    assert!(begun.elapsed() < SOON);
}

#[test]
fn children_are_killed_also_if_the_command_has_just_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script =
        "cd $FOLDER; sleep 300 & echo $! > child; echo $$ > new; mv new parent; until [ -e end ]; do sleep 0.01; done";
    let environment = [("FOLDER".to_owned(), folder.path().display().to_string())];
    // It ends while this is called, so that both its end and the kill are due.
    let proceed = || {
        while !path("parent").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::write(path("end"), "").unwrap();
        is_gone(&std::fs::read_to_string(path("parent")).unwrap());
        false
    };
    let (program, arguments, proceed) = (&Program::find("sh").unwrap(), &["-c", script], &proceed);
    let execution = Execution { program, arguments, environment: &environment, input: b"", timeout: SOON, proceed };
    assert!(matches!(execute(&execution), Err(CommandError::Stopped { .. })));
    is_gone(&std::fs::read_to_string(path("child")).unwrap());
}

/// Another process traces the command, so the command stays a zombie that only that process can wait for.
const TRACED: &str = "
import ctypes, os, sys, time
command = os.getpid()
if os.fork() == 0:
    os.setsid()
    seized = ctypes.CDLL(None).ptrace(0x4206, command, ctypes.c_void_p(), ctypes.c_void_p())
    with open('new', 'w') as file:
        file.write(f'{os.getpid()} {seized}')
    os.rename('new', 'tracer')
time.sleep(300)
";

#[test]
#[expect(clippy::print_stderr, reason = "tests that are skipped are reported")]
fn a_command_that_cannot_be_killed_does_not_delay_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tracer");
    let proceed = || {
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    };
    let script = format!("import os; os.chdir({:?}){TRACED}", folder.path());
    let (program, arguments, proceed) = (&Program::find("python3").unwrap(), &["-c", &script], &proceed);
    let (begun, timeout) = (Instant::now(), Duration::from_mins(2));
    let ended = execute(&Execution { program, arguments, environment: &[], input: b"", timeout, proceed });
    let took = begun.elapsed();
    let tracer = std::fs::read_to_string(&path).unwrap();
    let (pid, seized) = tracer.split_once(' ').unwrap();
    rustix::process::kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    assert!(matches!(ended, Err(CommandError::Stopped { .. })));
    if seized == "0" {
        assert!(took > DYING && took < Duration::from_mins(1), "{took:?}");
    } else {
        eprintln!("SKIPPED: a process may not trace another one here");
    }
}

/// Waits until the process is killed, whether or not it is a zombie.
fn is_gone(pid: &str) {
    let path = format!("/proc/{}/stat", pid.trim());
    for _ in 0..200 {
        match std::fs::read_to_string(&path) {
            Ok(stat) if !stat.contains(") Z ") => std::thread::sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
    panic!("{path} still exists");
}

#[test]
fn a_command_that_prints_too_much_is_killed() {
    assert!(matches!(output("yes", &[], SOON), Err(CommandError::TooMuchOutput { .. })));
    assert!(matches!(shell("yes >&2", SOON), Err(CommandError::TooMuchOutput { .. })));
}
