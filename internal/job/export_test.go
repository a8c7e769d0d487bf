package job

// Place lets tests look at what happens before claims are deleted.
var Place = (*Restore).place

var WorkerError = workerError
