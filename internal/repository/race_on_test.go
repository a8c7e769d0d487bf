//go:build race

package repository

// slowdown is by how much less data the large tests use.
const slowdown = 16

// crashStep is how many calls of the store lie between two crashes.
const crashStep = 7

// raceScale is by how much less data the other tests use.
const raceScale = 4
