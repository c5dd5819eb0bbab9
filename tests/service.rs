//! `deploy/ezscale.service` starts: systemd understands it, and its commands run as they stand there.

#![allow(clippy::unwrap_used, reason = "a test file: what is not there fails the test")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::command::{output_of, signal, wait_for_exit};
use crate::support::ezscale::DataDir;

const UNIT: &str = include_str!("../deploy/ezscale.service");
const BINARY: &str = env!("CARGO_BIN_EXE_ezscale");
const INSTALLED: &str = "/usr/local/bin/ezscale";
const LIMIT: Duration = Duration::from_secs(60);

/// The value of a setting; of one that is given several times the last.
fn setting(name: &str) -> &'static str {
    let mut values = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.next_back().unwrap_or_else(|| panic!("the unit has {name}"))
}

#[test]
fn systemd_understands_every_line() {
    let data = DataDir::new();
    // The program lies elsewhere here; nothing else is changed.
    let file = data.scratch().join("ezscale.service");
    std::fs::write(&file, UNIT.replace(INSTALLED, BINARY)).unwrap();
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg("--man=no")
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verified.stderr).into_owned() + &String::from_utf8_lossy(&verified.stdout);
    assert!(verified.status.success() && said.trim().is_empty(), "{said}");
    let exposure = output_of(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=30"])
            .arg(&file),
    );
    assert!(exposure.contains("Overall exposure level"), "{exposure}");
}

#[test]
fn the_backup_by_cron_names_the_program_where_the_unit_installs_it() {
    // Debian's cron searches /usr/bin and /bin alone.
    let guide = include_str!("../docs/durability.md");
    let line = guide.lines().find(|line| line.starts_with("15 3 * * * "));
    let line = line.expect("there is a line for cron");
    let command = line
        .strip_prefix("15 3 * * * ezscale ")
        .expect("it runs as the service's user");
    for one in command.split(" && ") {
        assert!(one.starts_with(&format!("{INSTALLED} backup ")), "{one}");
    }
}

/// The first steps at the head of the unit are commands of today's program, and the sysctl is what the collector asks for.
#[test]
fn its_head_says_how_the_first_admin_signs_in() {
    let data = DataDir::made();
    std::fs::write(
        data.scratch().join("config.toml"),
        format!("data_dir = {:?}\n", data.path()),
    )
    .unwrap();
    let steps: Vec<&str> = UNIT.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    let step = |start: &str| *steps.iter().find(|step| step.starts_with(start)).unwrap();
    let add = step("sudo -u ezscale ezscale user add").replace(
        "/etc/ezscale/config.toml",
        &data.scratch().join("config.toml").display().to_string(),
    );
    let words: Vec<&str> = add.split_whitespace().skip_while(|word| *word != "user").collect();
    let mut command = Command::new(BINARY);
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut adding = command.spawn().unwrap();
    std::io::Write::write_all(&mut adding.stdin.take().unwrap(), b"kiln-lantern-42-orchard\n").unwrap();
    assert!(wait_for_exit(&mut adding, "user add", LIMIT).success());
    let listed = data.run(&["user", "list"]);
    assert!(
        listed.contains("you@example.net") && listed.contains("admin"),
        "{listed}"
    );

    let example = crate::support::ezscale::run(&["config", "example"]);
    let buffer = example
        .lines()
        .find_map(|line| line.strip_prefix("# receive_buffer_bytes = "))
        .and_then(|rest| rest.split_whitespace().next())
        .unwrap();
    assert!(
        step("echo").contains(&format!("net.core.rmem_max={buffer} ")),
        "{buffer}"
    );
}

/// A command of the unit, with its folders under another root and the program built here.
fn command(line: &str, root: &Path) -> Command {
    let mut words = line.split_whitespace().map(|word| {
        word.replace(INSTALLED, BINARY)
            .replace(
                "${CONFIGURATION_DIRECTORY}",
                &root.join("etc/ezscale").display().to_string(),
            )
            .replace(
                "${STATE_DIRECTORY}",
                &root.join("var/lib/ezscale").display().to_string(),
            )
    });
    let program = words.next().unwrap();
    assert_eq!(program, BINARY, "{line}");
    // As the unit sets it, before the program runs.
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "umask \"$1\"; shift; exec \"$@\"",
            "sh",
            setting("UMask"),
            &program,
        ])
        .args(words)
        .current_dir(root.join("var/lib/ezscale"))
        .stdin(Stdio::null());
    command
}

#[test]
fn its_commands_run_with_the_example_and_leave_nothing_to_others() {
    let data = DataDir::new();
    let root = data.scratch().to_owned();
    let (etc, state) = (root.join("etc/ezscale"), root.join("var/lib/ezscale"));
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    let mode = |text: &str| std::fs::Permissions::from_mode(u32::from_str_radix(text, 8).unwrap());
    std::fs::set_permissions(&state, mode(setting("StateDirectoryMode"))).unwrap();
    // As the head of the unit says, but for the ports, which others may have here.
    let mut example = crate::support::ezscale::run(&["config", "example"]);
    for port in [":2055", ":6343", ":8080"] {
        assert!(example.contains(port));
        example = example
            .replace(&format!("0.0.0.0{port}"), "127.0.0.1:0")
            .replace(&format!("127.0.0.1{port}"), "127.0.0.1:0");
    }
    std::fs::write(etc.join("config.toml"), example).unwrap();

    let checked = output_of(&mut command(setting("ExecStartPre"), &root));
    assert!(checked.contains(": ok,"), "{checked}");

    let mut process = command(setting("ExecStart"), &root)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let listening: Vec<String> = lines.map_while(Result::ok).take(3).collect();
    assert!(
        ["netflow", "sflow", "http"]
            .iter()
            .all(|kind| listening.iter().any(|line| line.starts_with(kind))),
        "{listening:?}"
    );
    signal(&process, "TERM");
    assert_eq!(wait_for_exit(&mut process, "the service", LIMIT).code(), Some(0));
    assert!(
        state.join("ezscale.db").exists(),
        "the data is where systemd made the folder"
    );
    let open = output_of(Command::new("find").arg(&state).args(["-perm", "/077"]));
    assert_eq!(open.trim(), "", "files are open to others");
}
