//go:build !unix

package regular

// AtOnce has no meaning here: opening does not wait.
const AtOnce = 0

// NoFollow has no meaning here: links need a privilege.
const NoFollow = 0
