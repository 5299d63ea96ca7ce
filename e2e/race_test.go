//go:build race && unix

package e2e

// raceDetector says that the tests have it, and so lictor shall have it too.
const raceDetector = true
