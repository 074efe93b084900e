// Shows the document that the page links to. No validator is asked: that would be a foreign service.
SwaggerUIBundle({
  url: document.querySelector("link[rel=service-desc]").href,
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
