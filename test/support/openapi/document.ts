import { readFileSync } from 'node:fs';

/** A JSON Schema, or a part of the document whose members are not read by name. */
export type Json = Readonly<Record<string, unknown>>;

export interface Reference {
  readonly $ref: string;
}

export interface MediaType {
  readonly schema?: Json;
  /** The schema of each line of JSON lines. */
  readonly 'x-item-schema'?: Json;
  /** The schemas of the data of Herald's own events in a stream, by type. */
  readonly 'x-event-schemas'?: Readonly<Record<string, Json>>;
}

export type Content = Readonly<Record<string, MediaType>>;

export interface HeaderObject {
  readonly required?: boolean;
  readonly 'x-every-response'?: boolean;
  readonly schema: Json;
}

export interface ResponseObject {
  readonly headers?: Readonly<Record<string, HeaderObject | Reference>>;
  readonly content?: Content;
}

export interface Parameter {
  readonly name: string;
  readonly in: 'path' | 'query' | 'header';
  readonly required?: boolean;
  readonly schema: Json;
}

export interface Operation {
  readonly operationId: string;
  readonly parameters?: readonly (Parameter | Reference)[];
  readonly requestBody?: { readonly required?: boolean; readonly content: Content };
  readonly responses: Readonly<Record<string, ResponseObject | Reference>>;
}

export const methods = ['get', 'put', 'post', 'delete', 'patch'] as const;
export type Method = (typeof methods)[number];

export type PathItem = Readonly<Partial<Record<Method, Operation>>> & {
  readonly parameters?: readonly (Parameter | Reference)[];
};

/** The members of an OpenAPI document that tests read. Spec: https://spec.openapis.org/oas/v3.1.1 */
export interface OpenApiDocument {
  readonly info: { readonly version: string };
  readonly paths: Readonly<Record<string, PathItem>>;
  readonly components: {
    readonly headers: Readonly<Record<string, HeaderObject>>;
    readonly responses: Readonly<Record<string, ResponseObject>>;
    readonly schemas: Readonly<Record<string, Json>>;
  };
}

/** Reads the document that Herald serves. */
export function readDocument(): OpenApiDocument {
  const file = new URL('../../../src/openapi.json', import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')) as OpenApiDocument; // Its structure has a test.
}

/** Returns the object to which a reference points, such as `#/components/responses/Tokens`. Throws if none. */
export function resolve<Target extends object>(
  document: OpenApiDocument,
  target: Target | Reference,
): Target {
  if (!('$ref' in target)) return target;
  const names = target.$ref.split('/').slice(1);
  let found: unknown = document;
  for (const name of names) found = (found as Json | undefined)?.[name];
  if (found === undefined) throw new Error(`docs/openapi.yaml has no ${target.$ref}`);
  return found as Target;
}

/** An operation and the parameters of its path, without references. */
export interface FoundOperation {
  readonly name: string;
  readonly operation: Operation;
  readonly parameters: readonly Parameter[];
}

/** Finds the path item of a request path; a path without parameters takes precedence. */
export function findPath(
  { paths }: OpenApiDocument,
  path: string,
): readonly [template: string, item: PathItem] | undefined {
  const exact = paths[path];
  if (exact !== undefined) return [path, exact];
  return Object.entries(paths).find(([template]) => toPattern(template).test(path));
}

/** Finds the operation of a request. `HEAD` finds that of `GET`, unless it opens a stream. */
export function findOperation(
  document: OpenApiDocument,
  method: string,
  path: string,
): FoundOperation | undefined {
  const [template, item] = findPath(document, path) ?? [];
  const member = method === 'HEAD' ? 'get' : method.toLowerCase();
  if (item === undefined || template === undefined || !isMethod(member)) return undefined;
  const operation = item[member];
  if (operation === undefined || (method === 'HEAD' && opensStream(document, operation)))
    return undefined;
  const parameters = [...(item.parameters ?? []), ...(operation.parameters ?? [])];
  return {
    name: `${member.toUpperCase()} ${template}`,
    operation,
    parameters: parameters.map((one) => resolve<Parameter>(document, one)),
  };
}

function isMethod(name: string): name is Method {
  return methods.some((one) => one === name);
}

function opensStream(document: OpenApiDocument, { responses }: Operation): boolean {
  const ok = responses['200'];
  if (ok === undefined) return false;
  return resolve<ResponseObject>(document, ok).content?.['text/event-stream'] !== undefined;
}

const patterns = new Map<string, RegExp>();

function toPattern(template: string): RegExp {
  const known = patterns.get(template);
  if (known !== undefined) return known;
  const parts = template.split(/\{\w+\}/).map((text) => text.replace(/[.*+?^$()|[\]\\]/g, '\\$&'));
  const pattern = new RegExp(`^${parts.join('[^/]+')}$`);
  patterns.set(template, pattern);
  return pattern;
}
