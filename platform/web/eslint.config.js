import js from "@eslint/js";
import ts from "typescript-eslint";

const nodeGlobals = Object.fromEntries(
  ["Buffer", "URL", "console", "fetch", "process", "setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance",
    "TextEncoder"].map((name) => [name, "readonly"]),
);
const pageGlobals = { document: "readonly", window: "readonly", HTMLVideoElement: "readonly" };

export default ts.config(
  { ignores: ["dist/", "node_modules/"] },
  js.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [...ts.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      "@typescript-eslint/explicit-module-boundary-types": "error",
      "@typescript-eslint/switch-exhaustiveness-check": "error",
    },
  },
  {
    files: ["test/**/*.ts"],
    // node:test collects the promises of its tests itself.
    rules: { "@typescript-eslint/no-floating-promises": "off" },
  },
  { files: ["**/*.mjs"], languageOptions: { globals: { ...nodeGlobals, ...pageGlobals } } },
);
