package certificates

import "fmt"

// NoName returns the error for an instance that must give the name in its certificate, and gives no valid one. The
// argument from says where the name should be, such as `its meta "tls_server_name"`.
func NoName(from string) error {
	return fmt.Errorf("the instance has no valid server name in %s, so its certificate cannot be verified", from)
}
