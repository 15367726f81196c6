//! Tests of the whole way of a request, in process.
