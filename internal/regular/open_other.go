//go:build !unix

package regular

// AtOnce has no meaning here: opening does not wait.
const AtOnce = 0
