//go:build !race

package repository

// slowdown is by how much less data the large tests use.
const slowdown = 1

// crashStep is how many calls of the store lie between two crashes.
const crashStep = 1

// raceScale is by how much less data the other tests use.
const raceScale = 1
