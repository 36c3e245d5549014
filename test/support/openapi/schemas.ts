import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { Json, OpenApiDocument } from './document.js';

/**
 * Validates values against the schemas of a document. Objects have no other members than those that their
 * schema lists, although clients must expect further members; so an undocumented member is found.
 */
export class Schemas {
  readonly #ajv: Ajv2020;
  readonly #compiled = new Map<Json, ValidateFunction>();

  constructor(document: OpenApiDocument) {
    const options = { allErrors: true, allowUnionTypes: true, strict: true };
    this.#ajv = new Ajv2020(options);
    this.#ajv.addSchema(prepare({ $id: documentId, $defs: document.components.schemas }));
  }

  /** Returns what is wrong with the value; nothing if it matches. The schema may refer to components. */
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
 * Adds `additionalProperties: false` to each schema of an object that lists members and does not have it, takes
 * extensible lists for complete, and makes references independent of the document's structure.
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
