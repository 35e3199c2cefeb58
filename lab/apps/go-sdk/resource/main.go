// Prints, as JSON, the resource that the SDK reads from the environment. Any error ends it, as in programs that
// follow the SDK's documentation.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"go.opentelemetry.io/otel/sdk/resource"
)

func main() {
	found, err := resource.New(context.Background(), resource.WithFromEnv())
	if err != nil {
		log.Fatal(err)
	}
	attributes := map[string]string{}
	for _, attribute := range found.Attributes() {
		attributes[string(attribute.Key)] = attribute.Value.Emit()
	}
	if err := json.NewEncoder(os.Stdout).Encode(attributes); err != nil {
		log.Fatal(err)
	}
}
