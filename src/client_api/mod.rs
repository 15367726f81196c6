//! The client-server API.
