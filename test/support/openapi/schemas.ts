import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { Json, OpenApiDocument } from './document.js';

/**
 * Validates values against the schemas of a document. Rejects members that a schema does not list, although
 * clients must accept them, so that undocumented members are reported.
 */
export class Schemas {
  readonly #ajv: Ajv2020;
  readonly #compiled = new Map<Json, ValidateFunction>();

  constructor(document: OpenApiDocument) {
    const options = { allErrors: true, allowUnionTypes: true, strict: true };
    this.#ajv = new Ajv2020(options);
    this.#ajv.addSchema(prepare({ $id: documentId, $defs: document.components.schemas }));
  }

  /** Returns how a value differs from a schema; an empty array if it matches. The schema may refer to components. */
  findProblems(schema: Json, value: unknown): string[] {
    const validate = this.#compiled.get(schema) ?? this.#ajv.compile(prepare(schema));
    this.#compiled.set(schema, validate);
    if (validate(value)) return [];
    return (validate.errors ?? []).map(({ instancePath, message, params }) => {
      const { additionalProperty: name, allowedValues, allowedValue = allowedValues } = params;
      const where = instancePath === '' ? 'the value' : instancePath;
      if (name !== undefined) return `${where} has the undocumented member "${name}"`;
      const allowed = allowedValue === undefined ? '' : ` ${JSON.stringify(allowedValue)}`;
      return `${where} ${message}${allowed}`;
    });
  }
}

const documentId = 'openapi';

/**
 * Prepares a schema: forbids additional members in each object schema that does not mention them, treats
 * extensible lists as complete, and makes references independent of the document's structure.
 */
function prepare(schema: Json): Json {
  return JSON.parse(JSON.stringify(schema), (key, node) => {
    if (key === '$ref' && typeof node === 'string')
      return node.replace('#/components/schemas/', `${documentId}#/$defs/`);
    const { 'x-extensible-enum': values, ...rest } = node ?? {};
    if (values !== undefined) return { ...rest, enum: values };
    const isObject = node?.type === 'object' && typeof node.properties === 'object';
    return isObject ? { additionalProperties: false, ...node } : node;
  });
}
