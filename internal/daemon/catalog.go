package daemon

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/lictor-proxy/lictor/config"
	"github.com/lictor-proxy/lictor/internal/consul"
)

// A Catalog lists the services of a datacenter.
type Catalog struct {
	Tags     map[string][]string // by the name of a service, the tags of all its instances
	Filtered bool                // Consul left services out because the token may not see them
}

// ReadCatalog asks the Consul of cfg for the services of a datacenter. An empty datacenter means the one of cfg. An
// error says why Consul did not answer within askTimeout.
func ReadCatalog(ctx context.Context, cfg *config.Config, datacenter string) (*Catalog, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := consul.New(clientOptions(cfg.Consul))
	if err != nil {
		return nil, err
	}
	defer client.CloseIdle()
	client.Settle(ctx, "")
	if datacenter == "" {
		datacenter = cfg.Consul.Datacenter
	}
	values := url.Values{}
	if datacenter != "" {
		values.Set("dc", datacenter)
	}
	answer, err := client.Query(ctx, consul.Request{Path: "/v1/catalog/services", Values: values})
	if err != nil {
		return nil, err
	}
	defer answer.Free()
	if consul.TooManyElements(answer.Body) {
		return nil, consul.ErrTooManyElements
	}
	c := &Catalog{Filtered: answer.Filtered}
	return c, json.Unmarshal(answer.Body, &c.Tags)
}

// clientOptions returns the options of a client for the Consul of a configuration.
func clientOptions(c config.Consul) consul.Options {
	addresses := c.Address.All()
	return consul.Options{
		Address:   addresses[0],
		More:      addresses[1:],
		Token:     string(c.Token),
		TokenFile: c.TokenFile,
		HTTPAuth:  string(c.HTTPAuth),
		Namespace: c.Namespace,
		Partition: c.Partition,
		TLS:       consul.TLSOptions(c.TLS),
	}
}
