package repository

const (
	chunkMin     = 256 << 10
	chunkAverage = 1 << 20
	chunkMax     = 4 << 20
)
