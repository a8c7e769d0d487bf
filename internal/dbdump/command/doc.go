// Package command is the engine for what has no protocol of its own that
// Keepset speaks: a program, run beside the database, does the work. What it
// prints is the backup, and a restore gives it back on standard input.
//
// Its central type is [Engine]; an [Exec] runs its programs, in a container or
// on this machine ([Local]). [Quiescer] is a program that holds a server still
// for as long as its standard input is open.
//
// A program's output has no end that could be recognized: half of it looks like
// all of it. So an end has to be proven before it counts, and the proofs are
//
//   - the status, which has to be 0;
//   - the end mark. Over a connection a status alone proves little: what runs
//     between us and the container takes a lost connection for a quiet end, and
//     says "Success". So the program runs under a shell in its container, which
//     prints a random mark with the program's status behind its output. The
//     mark is cut off again. What has no mark is no backup;
//   - what the user says of a whole output ([Proof]), for programs that end with
//     status 0 after half their work.
//
// The other way round, a program that reads takes an end of input for the end
// of the backup, and may act on it. So that shell counts what arrives, and ends
// the program before its input ends too early.
package command
