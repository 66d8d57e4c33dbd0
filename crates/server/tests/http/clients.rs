//! The Python clients of OpenAI and Anthropic.

use std::env;
use std::path::Path;
use std::process::Command;

use dualgrain_testing::skipped;

use crate::client::{ALIAS, Server};

/// Names a Python that has both clients; `.ci/run` makes one.
const PYTHON: &str = "DUALGRAIN_CLIENTS";

#[test]
fn the_clients_of_openai_and_anthropic_understand_the_server() {
    let Some(python) = env::var_os(PYTHON) else {
        return skipped(
            "clients",
            format_args!("{PYTHON} names no Python with openai and anthropic"),
        );
    };
    let server = Server::usual();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/clients.py");
    let url = format!("http://{}", server.address);
    let mut command = Command::new(&python);
    let output = command.arg(script).args([&url, ALIAS]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", python.display()));
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("all well"), "{told}");
    server.wait_for_rest();
}
