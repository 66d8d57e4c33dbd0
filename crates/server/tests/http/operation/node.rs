//! The Node clients: `openai`, `@anthropic-ai/sdk` and `ai`.

use std::env;
use std::path::Path;
use std::process::Command;

use dualgrain_testing::skipped;

use crate::client::{ALIAS, Server};

/// Names a folder whose `node_modules` has the clients; `.ci/run` makes one.
const FOLDER: &str = "DUALGRAIN_NODE_CLIENTS";

#[test]
fn the_node_clients_understand_the_server() {
    let Some(folder) = env::var_os(FOLDER) else {
        return skipped(
            "node-clients",
            format_args!("{FOLDER} names no folder with the clients"),
        );
    };
    let server = Server::usual();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/operation/clients.mjs");
    let url = format!("http://{}", server.address);
    let output = Command::new("node")
        .arg(script)
        .arg(folder)
        .args([&url, ALIAS])
        .output();
    let output = output.unwrap_or_else(|error| panic!("node: {error}"));
    let told =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("all well"), "{told}");
    server.wait_for_rest();
}
