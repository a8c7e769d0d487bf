// Package cli is everything that the two binaries share between main and the
// jobs: signals, logging, flags that may also come from the environment, exit
// codes, JSON and tables, progress, and the explicit switches that turn a URL
// into a store or an engine.
//
// Its one central type is [App], handed to every command. A command file in
// cmd/ declares flags, fills the struct of a job and runs it; whatever two
// commands would otherwise both contain stands here. There is no registry and
// no global state: reading open.go answers which stores and engines exist.
//
// What it promises: a command's result is one exit code of the list in
// exit.go and one line on standard error; passwords and keys never arrive by
// argument and never leave by log; what a flag can say, a variable
// KEEPSET_<FLAG> can say too, and a misspelt variable is pointed out.
package cli
