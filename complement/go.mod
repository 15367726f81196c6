// Requires nothing until the pin in suite.commit has been resolved once: `run` then adds the
// requirement with its checksums, to be committed.
module causerie/complement

go 1.24
