//! The server over real connections: the bundled model behind a socket of this machine, no mocks.

mod chat;
mod client;
mod clients;
mod completions;
mod ends;
mod forms;
mod hostile;
mod isolation;
mod manual;
mod messages;
mod observe;
mod operation;
mod page;
mod responses;
mod texts;
