// Lists, filters, waits and calls back, with the client that oapi-codegen generates from docs/openapi.json.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"example.org/client/storage"
)

var client *storage.ClientWithResponses

func page(number, size int) (*storage.Listing, string) {
	params := storage.ListStorageResourcesParams{Page: &number, PageSize: &size}
	answer, err := client.ListStorageResourcesWithResponse(context.Background(), &params)
	if err != nil {
		log.Fatal(err)
	}
	if answer.JSON200 == nil || answer.Headers200.ETag == nil {
		log.Fatalf("the listing cannot be read: %s %s", answer.Status(), answer.Body)
	}
	return answer.JSON200, *answer.Headers200.ETag
}

// All items, the orders in progress, and the tag.
func whole() ([]storage.Item, map[string]storage.OrderInProgress, string) {
	first, tag := page(1, 20)
	items, orders := first.Resources, first.Orders
	for number := 2; int64(number) <= first.Pagination.Pages; number++ {
		next, _ := page(number, 20)
		items = append(items, next.Resources...)
		for key, order := range next.Orders {
			orders[key] = order
		}
	}
	if int64(len(items)) != first.Pagination.Total {
		log.Fatal("the listing changed while it was read")
	}
	return items, orders, tag
}

func wait(tag string, seconds int) int {
	prefer := fmt.Sprintf("wait=%d", seconds)
	params := storage.ListStorageResourcesParams{IfNoneMatch: &tag, Prefer: &prefer}
	answer, err := client.ListStorageResourcesWithResponse(context.Background(), &params)
	if err != nil {
		log.Fatal(err)
	}
	if answer.HTTPResponse.Header.Get("Preference-Applied") != prefer {
		log.Fatal("the proxy did not wait")
	}
	return answer.StatusCode()
}

func main() {
	authorize := func(_ context.Context, request *http.Request) error {
		request.Header.Set("Authorization", "Bearer "+os.Getenv("STORAGE_TOKEN"))
		return nil
	}
	var err error
	client, err = storage.NewClientWithResponses(os.Getenv("STORAGE_PROXY_URL"), storage.WithRequestEditorFn(authorize))
	if err != nil {
		log.Fatal(err)
	}

	items, orders, tag := whole()
	fmt.Printf("%d items, %d orders in progress\n", len(items), len(orders))
	system, status, size := "capstor", storage.ListStorageResourcesParamsStatusActive, 500
	filter := storage.ListStorageResourcesParams{StorageSystem: &system, Status: &status, PageSize: &size}
	active, err := client.ListStorageResourcesWithResponse(context.Background(), &filter)
	if err != nil || active.JSON200 == nil || len(active.JSON200.Resources) == 0 {
		log.Fatal("the filter failed: ", err)
	}
	for _, item := range active.JSON200.Resources {
		if item.StorageSystem.Key != system {
			log.Fatal("the filter failed")
		}
		// A type for each kind of target.
		if _, err := item.Target.ValueByDiscriminator(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Printf("%d of them are in use on %s\n", len(active.JSON200.Resources), system)

	if wait(tag, 1) != http.StatusNotModified {
		log.Fatal("the listing changed")
	}
	fmt.Println("no change within a second")

	for resource, order := range orders {
		if order.State == nil || *order.State != "pending-provider" || order.Uuid == nil {
			continue
		}
		change := make(chan int)
		go func() { change <- wait(tag, 60) }()
		called, err := client.RelayOrderCallbackWithResponse(
			context.Background(), *order.Uuid, storage.ApproveByProvider,
			storage.RelayOrderCallbackJSONRequestBody{})
		if err != nil || called.JSON200 == nil {
			log.Fatal("the callback failed: ", err)
		}
		if <-change != http.StatusOK {
			log.Fatal("the wait did not end when the listing changed")
		}
		state := "completed"
		if _, orders, _ := whole(); orders[resource].State != nil {
			state = *orders[resource].State
		}
		fmt.Printf("approved the order of %s; it was %s, and is now %s\n", resource, *order.State, state)
		return
	}
	log.Fatal("no order waits for the provider")
}
