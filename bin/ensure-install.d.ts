export const root: string;
export function checkNode(): void;
export function isInstalled(folder?: string): boolean;
export function ensureInstalled(): Promise<void>;
